package doctor

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ffpod/ffpod/cmd/ffpod/cluster"
)

// place is a container that mounts a directory.
type place struct{ pod, container, node string }

// The scripts of the trial, run as the pods' own identity. The reader asks for the
// name before it is there, as a player does for a segment: that is what network file
// systems remember too long.
const (
	readScript = `echo watching; n=0
while [ $n -lt 600 ]; do
  if [ "$(cat "$1" 2>/dev/null)" = "$2" ]; then echo "seen $(stat -c %u:%g "$1")"; exit 0; fi
  n=$((n+1)); sleep 0.05
done; echo never`
	writeScript = `printf %s "$2" > "$1" && echo "written $(id -u):$(id -g)"`
)

// sight is what the trial of one directory showed.
type sight struct {
	delay         time.Duration
	writer, owner string // uid:gid of the process, and of its file as the reader sees it
	never         bool
	refused       string // the writer's words when it could not write
}

// settle is how long the reader asks in vain before the file is written.
const settle = 300 * time.Millisecond

// see writes in one place and reads in another.
func see(ctx context.Context, p *Patient, from, to place, dir string) (sight, error) {
	ctx, cancel := context.WithTimeout(ctx, 45*time.Second)
	defer cancel()
	name, token := path.Join(dir, ".ffpod-doctor-"+rand.Text()), rand.Text()
	defer func() { // whatever happened
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_, _ = p.Exec(clean, from.pod, from.container, "rm", "-f", name)
	}()
	var s sight
	var seen time.Time
	watching, reading := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	go func() {
		reading <- p.Watch(ctx, to.pod, to.container, func(line string) {
			switch words := strings.Fields(line); {
			case line == "watching":
				once.Do(func() { close(watching) })
			case len(words) == 2 && words[0] == "seen":
				seen, s.owner = time.Now(), words[1]
			case line == "never":
				s.never = true
			}
		}, "sh", "-c", readScript, "sh", name, token)
	}()
	select {
	case <-watching:
	case err := <-reading:
		return s, fmt.Errorf("read in pod %s: %w", to.pod, cmp.Or(err, errors.New("it ended at once")))
	}
	time.Sleep(settle)
	var wrote time.Time
	var writer string
	out, err := p.Exec(ctx, from.pod, from.container, "sh", "-c", writeScript, "sh", name, token)
	wrote = time.Now()
	if err == nil && out.Code == 0 {
		writer = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(out.Stdout), "written"))
	}
	if err != nil || out.Code != 0 {
		cancel()
		<-reading
		s.refused = strings.TrimSpace(out.Stderr)
		return s, err
	}
	if err := <-reading; err != nil {
		return s, fmt.Errorf("read in pod %s: %w", to.pod, err)
	}
	s.writer = writer
	if seen.IsZero() && !s.never {
		return s, fmt.Errorf("read in pod %s: the connection ended before the answer", to.pod)
	}
	if !s.never {
		s.delay = max(0, seen.Sub(wrote))
	}
	return s, nil
}

// judge words a sight.
func judge(on string, s sight, err error) Finding {
	switch {
	case s.refused != "":
		return Finding{Level: Fail, On: on, What: "it cannot be written", Why: s.refused, Remedy: refusedRemedy(s.refused)}
	case err != nil:
		return unknown(on, "it could not be tried", err)
	case s.never:
		return Finding{Level: Fail, On: on, What: "what one pod writes the other does not see within 30 s", Why: "they are different directories, or a cache lives that long",
			Remedy: "compare `cat /proc/mounts` in both; a local path (k3s local-path, hostPath) is another directory on each node: use shared-nfs or shared-rwx"}
	case s.writer != "" && s.owner != s.writer:
		return Finding{Level: Fail, On: on, What: fmt.Sprintf("a file of %s belongs to %s there", s.writer, s.owner), Why: "the server maps ids (all_squash, anonuid, or NFS 4 names without a common domain)",
			Remedy: "export it with no mapping of ordinary ids (root_squash is fine; all_squash only with anonuid and anongid equal to identity)"}
	case s.delay > 10*time.Second:
		return Finding{Level: Fail, On: on, What: "a new file is seen after " + s.delay.Round(100*time.Millisecond).String(), Why: "the shim waits up to 10 s for an output, then fails", Remedy: "mount it with actimeo=1 (Longhorn: nfsOptions of the StorageClass), never nocto"}
	case s.delay > 1500*time.Millisecond:
		return Finding{Level: Warn, On: on, What: "a new file is seen after " + s.delay.Round(100*time.Millisecond).String(), Why: "playback starts and seeks that much later; the shim's asking again shortens it", Remedy: "mount it with actimeo=1 (Longhorn: nfsOptions of the StorageClass)"}
	}
	return ok(on, "a new file is seen after %s, as %s", s.delay.Round(time.Millisecond), s.owner)
}

func refusedRemedy(words string) string {
	switch {
	case strings.Contains(words, "Read-only"):
		return "remove readOnly from the mount, and ro from the volume's mount options"
	case strings.Contains(words, "No space"), strings.Contains(words, "quota"):
		return "enlarge the claim, or make room"
	}
	return "on the storage's server give the directory to the identity: `chown -R UID:GID DIR` (with root_squash no pod can); or set identity in settings.yaml to its owner"
}

// rwx tries the shared directories: after an install in its pods, before in two of
// its own.
func rwx(ctx context.Context, p *Patient) []Finding {
	if p.Exec == nil || p.Watch == nil {
		return nil
	}
	if p.Before {
		return p.Trial.run(ctx, p)
	}
	var found []Finding
	for _, c := range p.facts.callers {
		spec, _ := container(c.Pod.Spec, c.Container)
		here := place{c.Pod.Name, c.Container, c.Pod.Spec.NodeName}
		for _, d := range p.facts.classes {
			there, ok := p.facts.worker(d.Labels["ffpod.dev/class"], here.node)
			if !ok {
				found = append(found, Finding{Level: Unknown, On: className(d), What: "no warm worker runs, so its view of the shared directories was not tried", Remedy: "`kubectl scale deploy/" + d.Name + " --replicas=1`, run the doctor again, and scale back"})
				continue
			}
			theirs := cluster.ClaimMounts(d.Spec.Template.Spec, "worker")
			for _, dir := range strings.Split(env(spec, "FFPOD_SHARED"), ":") {
				if m, mounted := directory(theirs, dir); dir != "" && mounted {
					found = append(found, tryDirectory(ctx, p, here, there, dir, m.ReadOnly))
				}
			}
		}
	}
	return found
}

// worker is a running worker of a class, of another node if there is one.
func (f *facts) worker(class, node string) (place, bool) {
	pods := f.workerPods(class)
	if len(pods) == 0 {
		return place{}, false
	}
	i := max(0, slices.IndexFunc(pods, func(p corev1.Pod) bool { return p.Spec.NodeName != node }))
	return place{pods[i].Name, "worker", pods[i].Spec.NodeName}, true
}

// tryDirectory writes as the worker and reads as the caller, as a session does. What
// workers only read is compared.
func tryDirectory(ctx context.Context, p *Patient, caller, worker place, dir string, readOnly bool) Finding {
	on := fmt.Sprintf("%s, from worker %s (%s) to pod %s (%s)", dir, worker.pod, cmp.Or(worker.node, "?"), caller.pod, cmp.Or(caller.node, "?"))
	if readOnly {
		return compare(ctx, p, caller, worker, dir, on)
	}
	s, err := see(ctx, p, worker, caller, dir)
	return judge(on, s, err)
}

// compare lists a directory in both places.
func compare(ctx context.Context, p *Patient, caller, worker place, dir, on string) Finding {
	const script = `ls -A "$1" >/dev/null && ls -A "$1" | LC_ALL=C sort | cksum`
	var sums []string
	for _, at := range []place{caller, worker} {
		out, err := p.Exec(ctx, at.pod, at.container, "sh", "-c", script, "sh", dir)
		switch {
		case err != nil:
			return unknown(on, "it could not be read", err)
		case out.Code != 0:
			return Finding{Level: Fail, On: on, What: "pod " + at.pod + " cannot list it", Why: strings.TrimSpace(out.Stderr), Remedy: "let the identity read it: add its group to identity.supplementalGroups in settings.yaml, or `chmod -R o+rX` on the server"}
		}
		sums = append(sums, strings.TrimSpace(out.Stdout))
	}
	switch {
	case sums[0] != sums[1]:
		return Finding{Level: Fail, On: on, What: "the two see different files", Why: "they are different directories, or one is cached", Remedy: "mount the same claim in both; a hostPath is another directory on each node"}
	case strings.HasSuffix(sums[0], " 0"):
		return Finding{Level: Warn, On: on, What: "it is empty in both", Remedy: "check the export's path and that the library is in it"}
	}
	return ok(on, "both see the same files")
}

// Trial is a claim, or a StorageClass to make one of, and who uses it.
type Trial struct {
	Claim, StorageClass, Image string
	User, Group                int64
}

// run makes two pods on two nodes if there are, tries both directions, and removes
// what it made.
func (t Trial) run(ctx context.Context, p *Patient) []Finding {
	if t.Claim == "" && t.StorageClass == "" {
		return []Finding{{Level: Unknown, On: "shared storage", What: "it was not tried", Remedy: "`ffpod doctor --before --storage-class NAME`, or --claim NAME, makes two pods and tries it"}}
	}
	name := "ffpod-doctor-" + strings.ToLower(rand.Text()[:8])
	on := cmp.Or(t.Claim, "a claim of StorageClass "+t.StorageClass)
	defer t.remove(ctx, p, name)
	claim := t.Claim
	if claim == "" {
		claim = name
		if _, err := p.Client.CoreV1().PersistentVolumeClaims(p.Namespace).Create(ctx, t.claim(name), metav1.CreateOptions{}); err != nil {
			return []Finding{unknown(on, "no claim could be made", err)}
		}
	}
	var places []place
	for i := range 2 {
		pod := t.pod(fmt.Sprintf("%s-%d", name, i), name, claim)
		if _, err := p.Client.CoreV1().Pods(p.Namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			return []Finding{unknown(on, "no pod could be made", err)}
		}
	}
	for i := range 2 {
		at, problem := t.await(ctx, p, fmt.Sprintf("%s-%d", name, i))
		if problem != nil {
			problem.On = on
			return []Finding{*problem}
		}
		places = append(places, at)
	}
	var found []Finding
	if places[0].node == places[1].node {
		found = append(found, Finding{Level: Warn, On: on, What: "both pods are on node " + places[0].node, Why: "what two nodes see of each other was not tried", Remedy: "make a second node schedulable; with one node this is all there is"})
	}
	for _, pair := range [][2]place{{places[0], places[1]}, {places[1], places[0]}} {
		s, err := see(ctx, p, pair[0], pair[1], "/shared")
		found = append(found, judge(fmt.Sprintf("%s, from node %s to node %s", on, pair[0].node, pair[1].node), s, err))
	}
	return found
}

func (t Trial) claim(name string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: trialLabels(name)}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}, StorageClassName: &t.StorageClass,
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: quantity("1Gi")}},
	}}
}

func trialLabels(name string) map[string]string {
	return map[string]string{"app.kubernetes.io/name": "ffpod-doctor", "ffpod.dev/trial": name}
}

// pod is one that Pod Security `restricted` admits.
func (t Trial) pod(name, trial, claim string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: trialLabels(trial)}, Spec: corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever, AutomountServiceAccountToken: new(false), EnableServiceLinks: new(false),
		TerminationGracePeriodSeconds: new(int64(0)), ActiveDeadlineSeconds: new(int64(600)), // if nobody removes it
		SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: new(true), RunAsUser: &t.User, RunAsGroup: &t.Group,
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
		TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway,
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"ffpod.dev/trial": trial}}}},
		Containers: []corev1.Container{{Name: "trial", Image: t.Image, ImagePullPolicy: corev1.PullIfNotPresent, Command: []string{"sleep", "600"},
			SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
			Resources:       corev1.ResourceRequirements{Requests: small("10m", "16Mi"), Limits: small("500m", "64Mi")},
			VolumeMounts:    []corev1.VolumeMount{{Name: "shared", MountPath: "/shared"}}}},
		Volumes: []corev1.Volume{{Name: "shared", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}},
	}}
}

// await waits until a pod runs, or says why it does not.
func (t Trial) await(ctx context.Context, p *Patient, name string) (place, *Finding) {
	ctx, cancel := context.WithTimeout(ctx, 75*time.Second)
	defer cancel()
	why := "it was never seen"
	for {
		pod, err := p.Client.CoreV1().Pods(p.Namespace).Get(ctx, name, metav1.GetOptions{})
		if err == nil {
			if pod.Status.Phase == corev1.PodRunning {
				return place{name, "trial", pod.Spec.NodeName}, nil
			}
			bad := ails(*pod)
			if len(bad) > 0 {
				why = bad[0].What + ": " + bad[0].Why
			} else {
				why = "it is " + string(pod.Status.Phase) + " on node " + cmp.Or(pod.Spec.NodeName, "none") + ": its volume is made or mounted"
			}
		}
		select {
		case <-ctx.Done():
			return place{}, &Finding{Level: Fail, What: "a pod that mounts it does not start within 75 s", Why: why, Remedy: "`kubectl describe pvc,pod -l ffpod.dev/trial` while the doctor runs; the node needs the file system's client (Debian: nfs-common; Longhorn: open-iscsi and nfs-common)"}
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// remove deletes what the trial made, also when it was interrupted.
func (t Trial) remove(ctx context.Context, p *Patient, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	for i := range 2 {
		_ = p.Client.CoreV1().Pods(p.Namespace).Delete(ctx, fmt.Sprintf("%s-%d", name, i), metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
	}
	if t.Claim == "" {
		_ = p.Client.CoreV1().PersistentVolumeClaims(p.Namespace).Delete(ctx, name, metav1.DeleteOptions{})
	}
}

func quantity(text string) resource.Quantity { return resource.MustParse(text) }

func small(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: quantity(cpu), corev1.ResourceMemory: quantity(memory)}
}
