package doctor

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/ffpod/ffpod/cmd/ffpod/cluster"
)

// manyWriters are provisioners known to make ReadWriteMany volumes, oneNode those
// known not to.
var (
	manyWriters = []string{"nfs", "cephfs", "longhorn", "efs", "filestore", "azurefile", "azure-file", "file.csi", "smb", "juicefs", "gluster", "beegfs", "seaweed", "moosefs", "fsx.csi", "netapp"}
	oneNode     = []string{"local-path", "hostpath", "host-path", "no-provisioner", "minikube", "topolvm", "lvm", "rbd", "ebs", "pd.csi", "disk.csi", "cinder", "openebs.io/local"}
)

func provisions(list []string, provisioner string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.Contains(provisioner, s) })
}

// storageBefore says which StorageClasses could hold what.
func storageBefore(_ context.Context, p *Patient) []Finding {
	classes := p.facts.storageClasses
	if classes == nil {
		return nil // said by read
	}
	var found []Finding
	standard, many := "", []string{}
	for _, name := range slices.Sorted(maps.Keys(classes)) {
		c := classes[name]
		if c.Annotations["storageclass.kubernetes.io/is-default-class"] == "true" {
			standard = name
		}
		if provisions(manyWriters, c.Provisioner) && !provisions(oneNode, c.Provisioner) {
			many = append(many, name)
		}
		if c.Provisioner == "driver.longhorn.io" && c.Parameters["nfsOptions"] == "" {
			found = append(found, Finding{Level: Warn, On: "StorageClass " + name, What: "Longhorn mounts its ReadWriteMany volumes with NFS defaults", Why: "a soft mount turns a slow share manager into I/O errors, and attribute caches delay segments",
				Remedy: `for the shared claim make a class with parameters.nfsOptions: "vers=4.2,hard,actimeo=1"`})
		}
	}
	if standard == "" {
		found = append(found, Finding{Level: Warn, On: "cluster", What: "it has no default StorageClass", Why: "a claim without a class stays Pending", Remedy: "name one: component storage-class and storage.config.className in settings.yaml"})
	} else {
		found = append(found, ok("StorageClass "+standard, "it is the default, by %s", classes[standard].Provisioner))
	}
	nodes := len(p.facts.nodes)
	switch {
	case len(many) > 0:
		found = append(found, ok("cluster", "shared storage for several nodes may come from %s; --storage-class tries it", strings.Join(many, ", ")))
	case nodes == 1:
		found = append(found, ok("cluster", "one node: the shared claim may be ReadWriteOnce (component rwo)"))
	default:
		found = append(found, Finding{Level: Warn, On: "cluster", What: "no StorageClass is known to make ReadWriteMany volumes", Why: "Jellyfin and workers on other nodes share directories",
			Remedy: "use an NFS export (component shared-nfs), install Longhorn or another, or keep Jellyfin and workers on one node (components rwo and node-pinning)"})
	}
	return found
}

// users are the claims that running parts mount, each with who does.
func (f *facts) users() map[string][]string {
	users := map[string][]string{}
	for _, d := range f.deployments {
		if d.Spec.Template.Labels["app.kubernetes.io/name"] != "jellyfin" && !isOurs(d) {
			continue
		}
		for _, v := range d.Spec.Template.Spec.Volumes {
			if v.PersistentVolumeClaim != nil {
				users[v.PersistentVolumeClaim.ClaimName] = append(users[v.PersistentVolumeClaim.ClaimName], d.Name)
			}
		}
	}
	return users
}

func isOurs(d appsv1.Deployment) bool {
	return d.Labels["app.kubernetes.io/name"] == "ffpod" || d.Labels["app.kubernetes.io/part-of"] == "ffpod" || d.Labels["ffpod.dev/class"] != ""
}

// claims checks that each is there, bound, and of a mode that its users' nodes allow.
func claims(_ context.Context, p *Patient) []Finding {
	f := p.facts
	users := f.users()
	var found []Finding
	for _, name := range slices.Sorted(maps.Keys(users)) {
		on, by := "claim "+name, strings.Join(users[name], ", ")
		c, there := f.claims[name]
		if !there {
			found = append(found, Finding{Level: Fail, On: on, What: "it does not exist", Why: by + " mount it", Remedy: "apply the component that makes it, or correct its name (media.claim in settings.yaml)"})
			continue
		}
		bad := f.claim(c, by, len(users[name]))
		if len(bad) == 0 {
			bad = []Finding{ok(on, "bound, %v, mounted by %s", c.Status.AccessModes, by)}
		}
		found = append(found, bad...)
	}
	return found
}

func (f *facts) claim(c corev1.PersistentVolumeClaim, by string, users int) (found []Finding) {
	on := "claim " + c.Name
	if c.DeletionTimestamp != nil {
		found = append(found, Finding{Level: Fail, On: on, What: "it is being deleted, as soon as no pod mounts it", Why: "its data goes with it, unless the volume's reclaim policy is Retain",
			Remedy: "save the data now: `ffpod backup`, and `kubectl patch pv " + c.Spec.VolumeName + " -p '{\"spec\":{\"persistentVolumeReclaimPolicy\":\"Retain\"}}'`"})
	}
	if c.Status.Phase != corev1.ClaimBound {
		found = append(found, f.unbound(c))
		return found
	}
	many := slices.Contains(c.Status.AccessModes, corev1.ReadWriteMany) || slices.Contains(c.Status.AccessModes, corev1.ReadOnlyMany)
	if !many && users > 1 && len(f.nodes) != 1 {
		bad := Finding{Level: Fail, On: on, What: fmt.Sprintf("its access mode is %v, but %s mount it", c.Status.AccessModes, by), Why: "pods on a second node cannot start, or fail to attach",
			Remedy: "use ReadWriteMany storage (component shared-rwx or shared-nfs), or keep them all on one node (component node-pinning)"}
		if node, pods := f.together(c.Name); node != "" && pods >= users {
			bad.Level, bad.Why = Warn, "they are all on node "+node+" now; a Job's pod, or one after a restart, may be placed elsewhere and cannot start there"
		}
		found = append(found, bad)
	}
	v, there := f.volumes[c.Spec.VolumeName]
	if !there {
		return found
	}
	if c.Labels["ffpod.dev/keep"] == "true" && v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete && (c.Name == "jellyfin-config" || strings.Contains(c.Name, "postgres")) {
		found = append(found, Finding{Level: Warn, On: "volume " + v.Name, What: "its reclaim policy is Delete", Why: "whoever deletes claim " + c.Name + " deletes the data",
			Remedy: "`kubectl patch pv " + v.Name + " -p '{\"spec\":{\"persistentVolumeReclaimPolicy\":\"Retain\"}}'`"})
	}
	if c.Name == "jellyfin-config" && v.Spec.NFS != nil {
		found = append(found, Finding{Level: Fail, On: on, What: "Jellyfin's configuration lies on NFS", Why: "SQLite's locks and write-ahead log are not safe there: the library gets corrupted", Remedy: "move it to block or local storage: docs/storage.md"})
	}
	if (v.Spec.HostPath != nil || v.Spec.Local != nil) && users > 1 && len(f.nodes) > 1 && v.Spec.NodeAffinity == nil {
		found = append(found, Finding{Level: Fail, On: "volume " + v.Name, What: "it is a directory of whichever node a pod is on", Why: "Jellyfin and workers on different nodes see different directories", Remedy: "use NFS or other shared storage, or give the volume a nodeAffinity"})
	}
	return append(found, options("volume "+v.Name, "nfs", strings.Join(v.Spec.MountOptions, ","), v.Spec.NFS != nil)...)
}

// together is the node of all pods that mount a claim, "" if they are on several, and
// how many they are.
func (f *facts) together(claim string) (node string, pods int) {
	nodes := map[string]int{}
	for _, p := range f.pods {
		if p.Status.Phase == corev1.PodRunning && slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
			return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim
		}) {
			nodes[p.Spec.NodeName]++
		}
	}
	if len(nodes) != 1 {
		return "", 0
	}
	node = slices.Collect(maps.Keys(nodes))[0]
	return node, nodes[node]
}

func (f *facts) unbound(c corev1.PersistentVolumeClaim) Finding {
	out := Finding{Level: Fail, On: "claim " + c.Name, What: "it is " + string(c.Status.Phase) + ", not Bound"}
	name := ""
	if c.Spec.StorageClassName != nil {
		name = *c.Spec.StorageClassName
	}
	class, there := f.storageClasses[name]
	rwx := slices.Contains(c.Spec.AccessModes, corev1.ReadWriteMany)
	switch {
	case c.Status.Phase == corev1.ClaimLost:
		out.Why, out.Remedy = "its volume "+c.Spec.VolumeName+" is gone", "restore it from a backup"
	case c.Spec.VolumeName != "":
		out.Why, out.Remedy = "it waits for volume "+c.Spec.VolumeName, "`kubectl get pv "+c.Spec.VolumeName+"`: a Released one needs its claimRef.uid removed"
	case name != "" && f.storageClasses != nil && !there:
		out.Why, out.Remedy = "there is no StorageClass "+name, "name one that is there: `kubectl get storageclass`"
	case rwx && there && provisions(oneNode, class.Provisioner):
		out.Why = "StorageClass " + name + " (" + class.Provisioner + ") makes no ReadWriteMany volumes"
		out.Remedy = "k3s's local-path cannot: use shared-nfs, or shared-rwx with another class (storage.shared.className), or on one node the component rwo"
	case there && class.VolumeBindingMode != nil && *class.VolumeBindingMode == "WaitForFirstConsumer":
		out.Why, out.Remedy = "StorageClass "+name+" waits for a pod that mounts it", "see the check pods for why none starts"
	default:
		out.Why, out.Remedy = "no volume satisfies it", "`kubectl describe pvc "+c.Name+"` says what its provisioner answered"
	}
	return out
}

// options judges mount options of network file systems.
func options(on, kind, list string, network bool) (found []Finding) {
	if !network {
		return nil
	}
	add := func(level Level, what, why, remedy string) {
		found = append(found, Finding{Level: level, On: on, What: what, Why: why, Remedy: remedy})
	}
	for _, o := range strings.Split(list, ",") {
		key, value, _ := strings.Cut(o, "=")
		n, _ := strconv.Atoi(value)
		switch {
		case key == "soft" || key == "softerr":
			add(Warn, kind+" is mounted "+key, "a server that is slow for a moment becomes an I/O error, and a segment with a hole", "mount it hard")
		case key == "nocto":
			add(Fail, kind+" is mounted nocto", "Jellyfin would see a segment's old size for as long as the attribute cache lives", "remove nocto")
		case key == "nolock" && strings.HasPrefix(kind, "nfs"):
			add(Warn, kind+" is mounted nolock", "programs on two nodes do not see each other's locks", "use NFS 4, where locks are part of the protocol")
		case (key == "actimeo" || key == "acdirmax" || key == "acregmax") && n > 3:
			add(Warn, fmt.Sprintf("%s caches attributes up to %d s (%s)", kind, n, o), "a new segment may show that much later in Jellyfin's pod; the shim asks again, up to 10 s", "mount the shared claim with actimeo=1 (the media may keep its cache)")
		}
	}
	return found
}

// paths checks that what Jellyfin says is shared is the same directory in every class.
func paths(_ context.Context, p *Patient) []Finding {
	f := p.facts
	var found []Finding
	for _, c := range f.callers {
		spec, _ := container(c.Pod.Spec, c.Container)
		mounts := cluster.ClaimMounts(c.Pod.Spec, c.Container)
		for _, dir := range strings.Split(env(spec, "FFPOD_SHARED"), ":") {
			if dir == "" {
				continue
			}
			found = append(found, f.path(c, path.Clean(dir), mounts)...)
		}
	}
	return found
}

func (f *facts) path(c cluster.Caller, dir string, mounts map[string]cluster.ClaimMount) (found []Finding) {
	on := "pod " + c.Pod.Name + ", " + dir
	ours, there := directory(mounts, dir)
	if !there {
		return []Finding{{Level: Fail, On: on, What: "FFPOD_SHARED lists it, but no claim is mounted there", Why: "no worker can see what lies in the pod itself", Remedy: "mount the shared claim there, or take it off FFPOD_SHARED"}}
	}
	same := 0
	for _, d := range f.classes {
		theirs, there := directory(cluster.ClaimMounts(d.Spec.Template.Spec, "worker"), dir)
		switch {
		case !there:
			found = append(found, Finding{Level: Fail, On: on, What: className(d) + " does not mount it", Why: "its sessions would find nothing there", Remedy: fmt.Sprintf("mount claim %s%s at %s in Deployment %s", ours.Claim, sub(ours), dir, d.Name)})
		case theirs.Claim != ours.Claim || path.Clean("/"+theirs.SubPath) != path.Clean("/"+ours.SubPath):
			found = append(found, Finding{Level: Fail, On: on, What: fmt.Sprintf("it is claim %s%s there, but %s%s in %s", ours.Claim, sub(ours), theirs.Claim, sub(theirs), className(d)), Why: "workers would write where the caller does not read",
				Remedy: "mount the same claim and subPath in Deployment " + d.Name})
		case theirs.ReadOnly && !ours.ReadOnly && !strings.HasPrefix(dir, "/media"):
			found = append(found, Finding{Level: Fail, On: on, What: className(d) + " mounts it read-only", Why: "its sessions could not write their output", Remedy: "remove readOnly from the mount in Deployment " + d.Name})
		default:
			same++
		}
	}
	if len(found) == 0 && same > 0 {
		return []Finding{ok(on, "claim %s%s, the same in %d classes", ours.Claim, sub(ours), same)}
	}
	return found
}

func sub(m cluster.ClaimMount) string {
	if m.SubPath == "" {
		return ""
	}
	return " subPath " + m.SubPath
}

// directory is what a directory is: of the mount that holds it, the claim and the
// whole way below it.
func directory(mounts map[string]cluster.ClaimMount, dir string) (cluster.ClaimMount, bool) {
	best, found := "", cluster.ClaimMount{}
	for at, m := range mounts {
		if at = path.Clean(at); (dir == at || strings.HasPrefix(dir, strings.TrimSuffix(at, "/")+"/")) && len(at) > len(best) {
			best, found = at, m
		}
	}
	if best == "" {
		return found, false
	}
	if rest := strings.Trim(strings.TrimPrefix(dir, best), "/"); rest != "" {
		found.SubPath = strings.TrimPrefix(path.Join(found.SubPath, rest), "/")
	}
	return found, true
}

// person is who a pod's processes are.
type person struct {
	user, group string
	groups      string
}

func who(spec corev1.PodSpec, name string) person {
	out := person{"the image's", "the image's", ""}
	if s := spec.SecurityContext; s != nil {
		out.user, out.group = number(s.RunAsUser, out.user), number(s.RunAsGroup, out.group)
		var groups []string
		for _, g := range s.SupplementalGroups {
			groups = append(groups, strconv.FormatInt(g, 10))
		}
		slices.Sort(groups)
		out.groups = strings.Join(groups, " ")
	}
	if c, there := container(spec, name); there && c.SecurityContext != nil {
		out.user, out.group = number(c.SecurityContext.RunAsUser, out.user), number(c.SecurityContext.RunAsGroup, out.group)
	}
	return out
}

func number(n *int64, otherwise string) string {
	if n == nil {
		return otherwise
	}
	return strconv.FormatInt(*n, 10)
}

// identity checks that callers, workers and backups are one user.
func identity(_ context.Context, p *Patient) []Finding {
	f := p.facts
	var found []Finding
	for _, c := range f.callers {
		self := who(c.Pod.Spec, c.Container)
		on := "pod " + c.Pod.Name
		n := 0
		compare := func(what string, other person) {
			if other.user == self.user && other.group == self.group && other.groups == self.groups {
				n++
				return
			}
			level := Fail
			if other.user == self.user && other.group == self.group {
				level = Warn // only the groups differ: a class may need its render group
			}
			found = append(found, Finding{Level: level, On: what, What: fmt.Sprintf("it runs as %s:%s, groups [%s]; %s as %s:%s, groups [%s]", other.user, other.group, other.groups, on, self.user, self.group, self.groups),
				Why: "what one writes the other cannot replace or delete", Remedy: "set identity in settings.yaml, and list the component settings last: it reaches them all"})
		}
		for _, d := range f.classes {
			compare(className(d), who(d.Spec.Template.Spec, "worker"))
		}
		for _, j := range f.cronJobs {
			if spec := j.Spec.JobTemplate.Spec.Template.Spec; len(spec.Containers) > 0 && j.Labels["app.kubernetes.io/component"] == "backup" {
				compare("CronJob "+j.Name, who(spec, spec.Containers[0].Name))
			}
		}
		if n > 0 {
			found = append(found, ok(on, "user %s:%s, the same in %d others", self.user, self.group, n))
		}
		if c.Pod.Spec.SecurityContext != nil && c.Pod.Spec.SecurityContext.FSGroup != nil {
			policy := c.Pod.Spec.SecurityContext.FSGroupChangePolicy
			if policy == nil || *policy != corev1.FSGroupChangeOnRootMismatch {
				found = append(found, Finding{Level: Warn, On: on, What: "fsGroup without fsGroupChangePolicy: OnRootMismatch", Why: "each start changes the group of every file", Remedy: "set it"})
			}
		}
	}
	return found
}

// images checks that Jellyfin and its workers run one ffmpeg.
func images(ctx context.Context, p *Patient) []Finding {
	f := p.facts
	c, there := f.jellyfinCaller()
	if !there {
		return nil
	}
	ours := imageOf(c.Pod, c.Container)
	var found []Finding
	for _, d := range f.classes {
		spec, _ := container(d.Spec.Template.Spec, "worker")
		declared, _ := container(c.Pod.Spec, c.Container)
		if spec.Image != declared.Image && release(spec.Image) != "" && release(spec.Image) == release(declared.Image) {
			found = append(found, ok(className(d), "image %s, of the release that Jellyfin's %s is made from", spec.Image, declared.Image))
			continue
		}
		if spec.Image != declared.Image {
			found = append(found, Finding{Level: Warn, On: className(d), What: "its image is " + spec.Image + ", Jellyfin's " + declared.Image, Why: "Jellyfin asks its own ffmpeg what it can do, and workers have another",
				Remedy: "list the component jellyfin-workers: it gives classes Jellyfin's own image"})
			continue
		}
		for _, w := range f.workerPods(d.Labels["ffpod.dev/class"]) {
			if theirs := imageOf(&w, "worker"); theirs != "" && ours != "" && theirs != ours {
				found = append(found, Finding{Level: Warn, On: "worker " + w.Name, What: "the same tag is another image on its node", Why: theirs + " and " + ours, Remedy: "name images by digest, or pull them anew"})
			}
		}
		found = append(found, ok(className(d), "image %s, as Jellyfin", spec.Image))
	}
	return append(found, builds(ctx, p, c)...)
}

// release is that of Jellyfin in an image's tag, also of one made from its image, as
// the PostgreSQL provider's 10.11.11-1 is; "" for any other image.
func release(image string) string {
	name, tag, tagged := strings.Cut(image[strings.LastIndex(image, "/")+1:], ":")
	if !tagged || !strings.Contains(name, "jellyfin") {
		return ""
	}
	tag, _, _ = strings.Cut(tag, "@")
	tag, _, _ = strings.Cut(tag, "-")
	return tag
}

// builds compares the versions that the programs themselves tell.
func builds(ctx context.Context, p *Patient, c cluster.Caller) (found []Finding) {
	if p.Exec == nil || p.facts.status == nil {
		return nil
	}
	out, err := p.Exec(ctx, c.Pod.Name, c.Container, c.Shim, "-version")
	if err != nil || out.Code != 0 {
		return []Finding{{Level: Fail, On: "pod " + c.Pod.Name, What: "the real ffmpeg cannot be asked for its version", Why: fmt.Sprintf("exit %d %s %v", out.Code, out.Stderr, err), Remedy: "correct FFPOD_FFMPEG"}}
	}
	own := version(out.Stdout)
	for _, w := range p.facts.status.Workers {
		if theirs := w.FFmpeg; theirs != "" && own != "" && theirs != own && version("ffmpeg version "+theirs) != own {
			found = append(found, Finding{Level: Warn, On: "worker " + w.Pod, What: "its ffmpeg is " + theirs + ", Jellyfin's " + own, Why: "options that one knows the other may not", Remedy: "give both one image; placement.builds: same refuses others"})
		}
	}
	if len(found) == 0 {
		found = append(found, ok("pod "+c.Pod.Name, "ffmpeg %s, and no worker has another", own))
	}
	return append(found, buildIDs(p, c)...)
}

// buildIDs compares the ELF build ids: workers tell theirs, and a shim says that of
// its caller's ffmpeg with every session, so nothing is read in the pod.
func buildIDs(p *Patient, c cluster.Caller) (found []Finding) {
	on, own := "pod "+c.Pod.Name, ""
	for _, s := range p.facts.status.Sessions {
		if s.CallerPod == c.Pod.Name && s.CallerBuild != "" {
			own = s.CallerBuild
			break // the newest of those that run or ended
		}
	}
	known := 0
	for _, w := range p.facts.status.Workers {
		if w.FFmpegBuild == "" {
			continue
		}
		known++
		if own != "" && w.FFmpegBuild != own {
			found = append(found, Finding{Level: Warn, On: "worker " + w.Pod, What: "its ffmpeg is another build (" + w.FFmpegBuild + ") than Jellyfin's (" + own + ")", Why: "the version may be the same, and filters and fixes are not",
				Remedy: "give both one image (component jellyfin-workers, or name both by digest), then `kubectl rollout restart -n " + p.Namespace + " deploy -l ffpod.dev/class`; placement.builds: same refuses other builds"})
		}
	}
	switch {
	case own == "":
		return []Finding{{Level: Unknown, On: on, What: "the build id of its ffmpeg is not known, so builds are compared by version only", Why: "the shim tells it with a session, and the scheduler remembers none of this pod that told one (a program without a build id has none to tell)",
			Remedy: "`ffpod test -n " + p.Namespace + "`, then this again"}}
	case known == 0:
		return []Finding{{Level: Unknown, On: on, What: "no worker has told the build id of its ffmpeg", Why: "there is no warm worker, or its program carries none", Remedy: "scale a class to one warm worker, then this again"}}
	case len(found) == 0:
		return []Finding{ok(on, "%d workers have its very build of ffmpeg, %s", known, own)}
	}
	return found
}

// version is the third word of `ffmpeg -version`.
func version(text string) string {
	if words := strings.Fields(text); len(words) > 2 {
		return words[2]
	}
	return ""
}

func imageOf(pod *corev1.Pod, name string) string {
	for _, s := range pod.Status.ContainerStatuses {
		if s.Name == name {
			return s.ImageID[strings.LastIndex(s.ImageID, "@")+1:]
		}
	}
	return ""
}

// mounts looks at file systems as the processes see them: kind, options, space.
func mounts(ctx context.Context, p *Patient) []Finding {
	if p.Exec == nil {
		return nil
	}
	var found []Finding
	for _, c := range p.facts.callers {
		found = append(found, mounted(ctx, p, c)...)
	}
	return found
}

// leastFree is what Jellyfin itself wants of its directories before it starts: 2
// GiB, and ours above it.
const leastFree = 4 << 20 // KiB

func mounted(ctx context.Context, p *Patient, c cluster.Caller) (found []Finding) {
	on := "pod " + c.Pod.Name
	out, err := p.Exec(ctx, c.Pod.Name, c.Container, "cat", "/proc/self/mounts")
	if err != nil || out.Code != 0 {
		return []Finding{unknown(on, "its mounts cannot be read", fmt.Errorf("exit %d %s %v", out.Code, out.Stderr, err))}
	}
	targets := slices.Sorted(maps.Keys(cluster.ClaimMounts(c.Pod.Spec, c.Container)))
	for line := range strings.Lines(out.Stdout) {
		words := strings.Fields(line)
		if len(words) < 4 || !slices.Contains(targets, words[1]) {
			continue
		}
		kind := words[2]
		network := slices.ContainsFunc([]string{"nfs", "cifs", "smb", "ceph", "fuse", "9p", "gluster"}, func(s string) bool { return strings.HasPrefix(kind, s) })
		media := strings.HasPrefix(words[1], "/media")
		bad := options(on+", "+words[1], kind, words[3], network)
		if media { // a library that is only read may be cached
			bad = slices.DeleteFunc(bad, func(f Finding) bool { return strings.Contains(f.What, "caches attributes") })
		}
		if words[1] == "/config" && (strings.HasPrefix(kind, "nfs") || kind == "cifs") {
			bad = append(bad, Finding{Level: Fail, On: on + ", /config", What: "Jellyfin's configuration lies on " + kind, Why: "SQLite's locks and write-ahead log are not safe there", Remedy: "move it to block or local storage: docs/storage.md"})
		}
		if len(bad) == 0 {
			bad = []Finding{ok(on+", "+words[1], "%s", kind)}
		}
		found = append(found, bad...)
	}
	return append(found, space(ctx, p, c, targets)...)
}

func space(ctx context.Context, p *Patient, c cluster.Caller, targets []string) (found []Finding) {
	on := "pod " + c.Pod.Name
	if len(targets) == 0 {
		return nil
	}
	out, err := p.Exec(ctx, c.Pod.Name, c.Container, append([]string{"df", "-Pk"}, targets...)...)
	if err != nil || out.Code == 126 || out.Code == 127 {
		return []Finding{unknown(on, "its free space cannot be read", fmt.Errorf("exit %d %s %v", out.Code, out.Stderr, err))}
	}
	for line := range strings.Lines(out.Stdout) {
		words := strings.Fields(line)
		if len(words) < 6 {
			continue
		}
		free, err := strconv.ParseInt(words[3], 10, 64)
		dir := words[5]
		if err != nil || strings.HasPrefix(dir, "/media") {
			continue
		}
		if free < leastFree {
			found = append(found, Finding{Level: Warn, On: on + ", " + dir, What: fmt.Sprintf("%.1f GiB are free", float64(free)/(1<<20)), Why: "Jellyfin does not start below 2 GiB, and transcodes fill it", Remedy: "enlarge the claim (storage in settings.yaml), or free space"})
		}
	}
	return found
}
