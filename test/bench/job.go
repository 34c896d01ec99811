package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/ffpod/ffpod/podexec"
)

const (
	// podBound is the most that a pod may take to run `ffmpeg -version`.
	podBound = 90 * time.Second
	pollPod  = 100 * time.Millisecond
)

// measureJob compares the first byte of a Job's session at the shim with that of
// a bare pod which has the class's template and runs the command itself: by the
// time stamp that the node's container runtime gave it in the log.
func measureJob(ctx context.Context, b *bench) ([]row, error) {
	deployment, err := b.client.AppsV1().Deployments(b.namespace).Get(ctx, "ffpod-"+class, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read the class: %w", err)
	}
	bare := func(ctx context.Context) (float64, error) {
		d, err := b.barePod(ctx, deployment.Spec.Template.Spec)
		return ms(d), err
	}
	job := func(ctx context.Context) (float64, error) {
		r, err := b.run(ctx, forced("job"), shim, "-version")
		if err != nil {
			return 0, err
		}
		return ms(r.FirstByte), b.jobsEnded(ctx)
	}
	s, err := interleave(ctx, b.n.jobs, bare, job)
	if err != nil {
		return nil, err
	}
	return []row{quotient("job_start_ratio_p50", "job: first byte at the shim, over a bare pod's first byte", "ms", s[1], s[0], goal{bound: 1.25})}, nil
}

// barePod is the time from asking for the pod to the first byte in its log.
func (b *bench) barePod(ctx context.Context, template corev1.PodSpec) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, podBound)
	defer cancel()
	// Labels of its own: with the class's it would be taken for a warm worker.
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "ffpod-bench-", Labels: map[string]string{"app.kubernetes.io/name": "ffpod-bench"}},
		Spec:       *template.DeepCopy(),
	}
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	for i := range pod.Spec.Containers {
		if c := &pod.Spec.Containers[i]; c.Name == podexec.Container {
			c.Command, c.Args = []string{realFFmpeg, "-version"}, nil
		}
	}
	pods := b.client.CoreV1().Pods(b.namespace)
	asked := time.Now()
	pod, err := pods.Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		return 0, fmt.Errorf("create a bare pod: %w", err)
	}
	defer b.remove(context.WithoutCancel(ctx), pod.Name)
	err = wait.PollUntilContextCancel(ctx, pollPod, true, func(ctx context.Context) (bool, error) {
		p, err := pods.Get(ctx, pod.Name, metav1.GetOptions{})
		if err == nil && p.Status.Phase == corev1.PodFailed {
			err = fmt.Errorf("it failed: %s", p.Status.Message)
		}
		return err == nil && p.Status.Phase == corev1.PodSucceeded, err
	})
	if err != nil {
		return 0, fmt.Errorf("wait for bare pod %s: %w", pod.Name, err)
	}
	first, err := b.firstLogged(ctx, pod.Name)
	if err != nil {
		return 0, fmt.Errorf("log of bare pod %s: %w", pod.Name, err)
	}
	return first.Sub(asked), nil
}

// firstLogged is when the runtime read the first byte of the pod's output.
func (b *bench) firstLogged(ctx context.Context, pod string) (time.Time, error) {
	log, err := b.client.CoreV1().Pods(b.namespace).GetLogs(pod, &corev1.PodLogOptions{Container: podexec.Container, Timestamps: true}).Stream(ctx)
	if err != nil {
		return time.Time{}, err
	}
	defer log.Close()
	line, err := bufio.NewReader(log).ReadString('\n')
	if err != nil {
		return time.Time{}, fmt.Errorf("its first line %q: %w", line, err)
	}
	stamp, _, _ := strings.Cut(line, " ")
	return time.Parse(time.RFC3339Nano, stamp)
}

// remove deletes a pod and waits until it is gone, so that its end is no part of
// the next sample.
func (b *bench) remove(ctx context.Context, pod string) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	pods := b.client.CoreV1().Pods(b.namespace)
	_ = pods.Delete(ctx, pod, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
	_ = wait.PollUntilContextCancel(ctx, pollPod, true, func(ctx context.Context) (bool, error) {
		_, err := pods.Get(ctx, pod, metav1.GetOptions{})
		return err != nil, nil
	})
}

// jobsEnded waits until no Job's pod runs.
func (b *bench) jobsEnded(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, podBound)
	defer cancel()
	err := wait.PollUntilContextCancel(ctx, pollPod, true, func(ctx context.Context) (bool, error) {
		list, err := b.client.CoreV1().Pods(b.namespace).List(ctx, metav1.ListOptions{
			LabelSelector: "ffpod.dev/role=job", FieldSelector: "status.phase!=Succeeded,status.phase!=Failed"})
		return err == nil && len(list.Items) == 0, err
	})
	if err != nil {
		return fmt.Errorf("the pod of a Job still runs after its session ended: %w", err)
	}
	return nil
}
