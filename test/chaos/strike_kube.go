package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// restartScheduler is `kubectl rollout restart`.
func restartScheduler(ctx context.Context, w *world, _ []*session) (time.Time, error) {
	before, err := w.scheduler(ctx)
	if err != nil {
		return time.Now(), err
	}
	patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`, time.Now().Format(time.RFC3339Nano))
	if _, err := w.set.AppsV1().Deployments(namespace).Patch(ctx, "ffpod-scheduler", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		return time.Now(), fmt.Errorf("restart the scheduler: %w", err)
	}
	return w.schedulerAfter(ctx, before)
}

func deleteScheduler(grace int64) strike {
	return func(ctx context.Context, w *world, _ []*session) (time.Time, error) {
		before, err := w.scheduler(ctx)
		if err != nil {
			return time.Now(), err
		}
		if err := w.deletePods(ctx, schedulers, grace); err != nil {
			return time.Now(), err
		}
		return w.schedulerAfter(ctx, before)
	}
}

// deleteWorkers deletes every worker's pod, warm or a Job's.
func deleteWorkers(grace int64) strike {
	return func(ctx context.Context, w *world, _ []*session) (time.Time, error) {
		err := w.deletePods(ctx, workers, grace)
		return time.Now(), err
	}
}

func (w *world) deletePods(ctx context.Context, selector string, grace int64) error {
	pods, err := w.pods(ctx, selector)
	if err != nil {
		return err
	}
	for _, p := range pods {
		err := w.set.CoreV1().Pods(namespace).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &grace})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete pod %s: %w", p.Name, err)
		}
	}
	return nil
}

func evictWorkers(ctx context.Context, w *world, _ []*session) (time.Time, error) {
	pods, err := w.pods(ctx, workers)
	if err != nil {
		return time.Now(), err
	}
	for _, p := range pods {
		err := w.set.PolicyV1().Evictions(namespace).Evict(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: namespace}})
		if err != nil && !apierrors.IsNotFound(err) {
			return time.Now(), fmt.Errorf("evict pod %s: %w", p.Name, err)
		}
	}
	return time.Now(), nil
}

// deleteJobs deletes every Job as `kubectl delete jobs` does.
func deleteJobs(ctx context.Context, w *world, _ []*session) (time.Time, error) {
	jobs, err := w.set.BatchV1().Jobs(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return time.Now(), fmt.Errorf("list Jobs: %w", err)
	}
	if len(jobs.Items) == 0 {
		return time.Now(), errors.New("there is no Job to delete")
	}
	background := metav1.DeletePropagationBackground
	for _, j := range jobs.Items {
		err := w.set.BatchV1().Jobs(namespace).Delete(ctx, j.Name, metav1.DeleteOptions{PropagationPolicy: &background})
		if err != nil && !apierrors.IsNotFound(err) {
			return time.Now(), fmt.Errorf("delete Job %s: %w", j.Name, err)
		}
	}
	return time.Now(), nil
}
