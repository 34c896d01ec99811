package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	authzv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ffpod/ffpod/cmd/ffpod/cluster"
	"github.com/ffpod/ffpod/scheduler/server"
)

// The supported range of Kubernetes.
const oldestMinor, newestMinor = 30, 37

func apiServer(_ context.Context, p *Patient) []Finding {
	v, err := p.Client.Discovery().ServerVersion()
	if err != nil {
		return []Finding{{Level: Fail, On: "API server", What: "it does not answer", Why: err.Error(), Remedy: "check --kubeconfig and --context: `kubectl version`"}}
	}
	minor, _ := strconv.Atoi(strings.TrimRight(v.Minor, "+"))
	switch {
	case v.Major != "1" || minor < oldestMinor:
		return []Finding{{Level: Fail, On: "API server", What: "Kubernetes " + v.GitVersion + " is too old", Why: fmt.Sprintf("admission policies are v1 since 1.%d", oldestMinor),
			Remedy: fmt.Sprintf("upgrade the cluster to 1.%d or newer", oldestMinor)}}
	case minor > newestMinor:
		return []Finding{{Level: Warn, On: "API server", What: "Kubernetes " + v.GitVersion + " is newer than what this release was tested with", Why: fmt.Sprintf("that is 1.%d", newestMinor), Remedy: "look for a newer ffpod"}}
	}
	return []Finding{ok("API server", "Kubernetes %s", v.GitVersion)}
}

// right is one verb on one resource.
type right struct{ group, resource, verb, name string }

func (r right) String() string {
	s := r.verb + " " + r.resource
	if r.group != "" {
		s += "." + r.group
	}
	return s
}

func each(group, resources, verbs string) []right {
	var out []right
	for _, resource := range strings.Split(resources, ",") {
		for _, verb := range strings.Split(verbs, ",") {
			out = append(out, right{group: group, resource: resource, verb: verb})
		}
	}
	return out
}

// schedulerRights are the rules of kustomize/base/rbac.yaml; a test compares.
func schedulerRights() []right {
	return slices.Concat(
		each("", "pods", "get,list,watch"), each("", "pods/exec", "get,create"),
		each("batch", "jobs", "create,get,list,patch,delete"), each("apps", "deployments", "list,watch"),
		each("", "services", "list"), each("", "events", "list,create,patch"),
		[]right{{"", "secrets", "get", "ffpod-tls"}, {"", "secrets", "update", "ffpod-tls"}, {"", "configmaps", "get", "ffpod-client"}, {"", "configmaps", "update", "ffpod-client"}})
}

// rights asks what the operator may, and, after, what the scheduler may.
func rights(ctx context.Context, p *Patient) []Finding {
	if p.Before {
		need := slices.Concat(
			each("", "serviceaccounts,services,configmaps,secrets,persistentvolumeclaims", "create,get,patch"),
			each("apps", "deployments", "create,get,patch"), each("networking.k8s.io", "networkpolicies", "create,get,patch"),
			each("rbac.authorization.k8s.io", "roles,rolebindings", "create,get,patch"),
			schedulerRights()) // nobody may grant what he does not hold
		return mayAll(ctx, p.Client, p.Namespace, "you", need,
			"ask for the role admin: `kubectl create rolebinding ffpod-admin -n "+p.Namespace+" --clusterrole=admin --user=YOU`")
	}
	found := mayAll(ctx, p.Client, p.Namespace, "you", slices.Concat(each("", "pods/exec,pods/portforward", "create")),
		"without them this doctor sees less; ask for the role edit or admin in the namespace")
	for i := range found {
		if found[i].Level == Fail {
			found[i].Level = Warn
		}
	}
	f := p.facts
	if f.scheduler == nil || p.As == nil {
		return found
	}
	account := f.scheduler.Spec.Template.Spec.ServiceAccountName
	as, err := p.As(account)
	if err == nil {
		// Its Secret and ConfigMap may have another name here: see trust.
		need := slices.DeleteFunc(schedulerRights(), func(r right) bool { return r.name != "" })
		return append(found, mayAll(ctx, as, p.Namespace, "ServiceAccount "+account, need, "apply the overlay again: kustomize/base has its Role")...)
	}
	return append(found, unknown("ServiceAccount "+account, "what it may is not known", err))
}

func mayAll(ctx context.Context, client kubernetes.Interface, namespace, who string, need []right, remedy string) []Finding {
	review, err := client.AuthorizationV1().SelfSubjectRulesReviews().Create(ctx,
		&authzv1.SelfSubjectRulesReview{Spec: authzv1.SelfSubjectRulesReviewSpec{Namespace: namespace}}, metav1.CreateOptions{})
	if err != nil {
		return []Finding{unknown(who, "what they may in namespace "+namespace+" is not known", err)}
	}
	var missing []string
	for _, r := range need {
		if !may(review.Status.ResourceRules, r) {
			missing = append(missing, r.String())
		}
	}
	switch {
	case len(missing) == 0:
		return []Finding{ok(who, "every right that is needed in namespace %s", namespace)}
	case review.Status.Incomplete:
		return []Finding{{Level: Unknown, On: who, What: "these rights are not known to be there: " + strings.Join(missing, ", "), Why: cmp.Or(review.Status.EvaluationError, "the cluster's authorizer lists no rules"),
			Remedy: "ask one by one: `kubectl auth can-i VERB RESOURCE -n " + namespace + "`"}}
	}
	return []Finding{{Level: Fail, On: who, What: "rights are missing in namespace " + namespace + ": " + strings.Join(missing, ", "), Remedy: remedy}}
}

func may(rules []authzv1.ResourceRule, r right) bool {
	return slices.ContainsFunc(rules, func(rule authzv1.ResourceRule) bool {
		return any1(rule.Verbs, r.verb) && any1(rule.APIGroups, r.group) && (any1(rule.Resources, r.resource) || subresource(rule.Resources, r.resource)) &&
			(len(rule.ResourceNames) == 0 || r.name != "" && slices.Contains(rule.ResourceNames, r.name))
	})
}

func any1(all []string, one string) bool {
	return slices.Contains(all, one) || slices.Contains(all, "*")
}

func subresource(all []string, one string) bool {
	_, sub, found := strings.Cut(one, "/")
	return found && slices.Contains(all, "*/"+sub)
}

func namespace(ctx context.Context, p *Patient) []Finding {
	on := "namespace " + p.Namespace
	ns, err := p.Client.CoreV1().Namespaces().Get(ctx, p.Namespace, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err) && p.Before:
		return []Finding{{Level: Warn, On: on, What: "it does not exist", Remedy: "`kubectl create namespace " + p.Namespace + "`, or list a namespace.yaml in the overlay"}}
	case apierrors.IsNotFound(err):
		return []Finding{{Level: Fail, On: on, What: "it does not exist", Remedy: "name the install's with --namespace"}}
	case err != nil:
		return []Finding{unknown(on, "it cannot be read", err)}
	case ns.DeletionTimestamp != nil:
		return []Finding{{Level: Fail, On: on, What: "it is being deleted", Remedy: "wait until it is gone; what holds it up: `kubectl get namespace " + p.Namespace + " -o yaml`"}}
	}
	found := []Finding{ok(on, "it is there, Pod Security %s", cmp.Or(ns.Labels["pod-security.kubernetes.io/enforce"], "not enforced"))}
	quotas, err := p.Client.CoreV1().ResourceQuotas(p.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return append(found, unknown(on, "its quotas cannot be read", err))
	}
	for _, q := range quotas.Items {
		for name, hard := range q.Status.Hard {
			used := q.Status.Used[name]
			if used.Cmp(hard) >= 0 && !hard.IsZero() {
				found = append(found, Finding{Level: Warn, On: "ResourceQuota " + q.Name, What: fmt.Sprintf("%s is used up (%s of %s)", name, used.String(), hard.String()),
					Why: "a Job's pod would not be made, and its session would wait in vain", Remedy: "raise it, or lower ffpod.dev/jobs of the classes"})
			}
		}
	}
	return found
}

// policyRemedy is the same whoever finds it.
const policyRemedy = "have somebody who owns the cluster run `kubectl apply -k https://github.com/ffpod/ffpod//kustomize/cluster`; it is one page for all installs"

// policies tries, as the scheduler, what must be refused.
func policies(ctx context.Context, p *Patient) []Finding {
	const on = "admission policies"
	if p.Before {
		return policiesBefore(ctx, p)
	}
	pods := podsOf(p.facts, cluster.SchedulerLabels)
	if len(pods) == 0 {
		return []Finding{unknown(on, "no scheduler runs in whose name to try", errNotThere)}
	}
	problems, err := tryPolicies(ctx, p, pods[0])
	if err != nil && p.facts.status != nil && p.facts.status.Policies != nil {
		problems, err = p.facts.status.Policies, nil // the scheduler's own word
	}
	switch {
	case err != nil:
		return []Finding{{Level: Unknown, On: on, What: "no forbidden attempt could be made in the scheduler's name", Why: err.Error(), Remedy: "it needs the verb impersonate on serviceaccounts, which the roles admin and edit hold, or see the scheduler's log"}}
	case len(problems) == 0:
		return []Finding{ok(on, "a forbidden exec and a forbidden Job were refused")}
	}
	var found []Finding
	for _, problem := range problems {
		found = append(found, Finding{Level: Fail, On: on, What: problem, Why: "nothing keeps a stolen scheduler token from running any command in the pods of this namespace", Remedy: policyRemedy})
	}
	return found
}

func tryPolicies(ctx context.Context, p *Patient, pod corev1.Pod) ([]string, error) {
	if p.As == nil {
		return nil, errNotThere
	}
	self, err := server.FindSelf(ctx, p.Client, p.Namespace, pod.Name)
	if err != nil {
		return nil, err
	}
	client, err := p.As(pod.Spec.ServiceAccountName)
	if err != nil {
		return nil, err
	}
	problems := (&server.Policies{Client: client, Self: self}).Check(ctx)
	for _, problem := range problems {
		if strings.Contains(problem, "impersonate") {
			return nil, fmt.Errorf("%s", problem)
		}
	}
	return problems, nil
}

// policyNames are those of kustomize/cluster.
var policyNames = []string{"ffpod-exec", "ffpod-jobs", "ffpod-claims", "ffpod-pods", "ffpod-keep"}

func policiesBefore(ctx context.Context, p *Patient) []Finding {
	list, err := p.Client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().List(ctx, metav1.ListOptions{})
	if err != nil {
		return []Finding{{Level: Unknown, On: "admission policies", What: "whether they are there may not be read", Why: err.Error(), Remedy: "after the install, `ffpod doctor` tries them"}}
	}
	bound := map[string]bool{}
	for _, b := range list.Items {
		bound[b.Spec.PolicyName] = true
	}
	var missing []string
	for _, name := range policyNames {
		if !bound[name] {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return []Finding{{Level: Warn, On: "admission policies", What: "not in the cluster: " + strings.Join(missing, ", "), Why: "an install works without them, but a stolen scheduler token can do more than it should", Remedy: policyRemedy}}
	}
	return []Finding{ok("admission policies", "they are in the cluster")}
}

// podsOf returns the running pods with all the labels of a selector.
func podsOf(f *facts, selector string) []corev1.Pod {
	var out []corev1.Pod
	for _, pod := range f.pods {
		match := pod.Status.Phase == corev1.PodRunning && pod.DeletionTimestamp == nil
		for _, term := range strings.Split(selector, ",") {
			key, value, _ := strings.Cut(term, "=")
			match = match && pod.Labels[key] == value
		}
		if match {
			out = append(out, pod)
		}
	}
	slices.SortStableFunc(out, func(a, b corev1.Pod) int {
		x, y := cluster.Ready(a), cluster.Ready(b)
		return map[bool]int{true: 0, false: 1}[x] - map[bool]int{true: 0, false: 1}[y]
	})
	return out
}

// pods finds those that do not run, and why Kubernetes says so.
func pods(_ context.Context, p *Patient) []Finding {
	var found []Finding
	healthy := 0
	for _, pod := range p.facts.pods {
		if !ours(pod) || pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded {
			continue
		}
		if bad := ails(pod); len(bad) > 0 {
			found = append(found, bad...)
		} else {
			healthy++
		}
	}
	if len(found) == 0 {
		return []Finding{ok("namespace "+p.Namespace, "%d pods run", healthy)}
	}
	return found
}

func ours(pod corev1.Pod) bool {
	name := pod.Labels["app.kubernetes.io/name"]
	return name == "ffpod" || name == "jellyfin" || pod.Labels["app.kubernetes.io/part-of"] == "ffpod"
}

func ails(pod corev1.Pod) []Finding {
	on := "pod " + pod.Name
	var found []Finding
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			found = append(found, Finding{Level: Fail, On: on, What: "no node takes it", Why: c.Message, Remedy: schedulingRemedy(c.Message)})
		}
	}
	for _, s := range append(slices.Clone(pod.Status.InitContainerStatuses), pod.Status.ContainerStatuses...) {
		if w := s.State.Waiting; w != nil && w.Reason != "PodInitializing" && w.Reason != "ContainerCreating" {
			found = append(found, Finding{Level: Fail, On: on + ", container " + s.Name, What: w.Reason, Why: w.Message, Remedy: waitingRemedy(pod, s.Name, w.Reason)})
		}
		if t := s.LastTerminationState.Terminated; t != nil && s.RestartCount > 0 {
			found = append(found, Finding{Level: Warn, On: on + ", container " + s.Name, What: fmt.Sprintf("it restarted %d times, last with exit %d (%s)", s.RestartCount, t.ExitCode, cmp.Or(t.Reason, "Error")),
				Why: exitWhy(t.ExitCode, t.Reason), Remedy: "`kubectl logs " + pod.Name + " -c " + s.Name + " --previous`"})
		}
	}
	return found
}

func exitWhy(code int32, reason string) string {
	switch {
	case reason == "OOMKilled":
		return "it went over its memory limit"
	case code == 139:
		return "it died of SIGSEGV: for Jellyfin a driver or a native library, often of hardware acceleration in its own process; with ffpod it needs no /dev/dri"
	case code == 137:
		return "it was killed: by the node, a probe, or for memory"
	}
	return ""
}

func schedulingRemedy(message string) string {
	switch {
	case strings.Contains(message, "Insufficient"):
		return "see the check gpu for device plugins; else give the nodes room, or lower the class's requests"
	case strings.Contains(message, "unbound immediate PersistentVolumeClaims"), strings.Contains(message, "volume node affinity"):
		return "see the check claims"
	case strings.Contains(message, "taint"):
		return "add a toleration to the class with the component node-pinning"
	case strings.Contains(message, "node affinity"), strings.Contains(message, "node selector"):
		return "correct the node labels that nodeSelector or nodes.workers of settings.yaml names"
	}
	return "`kubectl describe pod` says more"
}

func waitingRemedy(pod corev1.Pod, name, reason string) string {
	switch reason {
	case "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName":
		return "name an image that the nodes can pull in the overlay's images:, or import it on each node (k3s: `k3s ctr images import FILE.tar`)"
	case "CreateContainerConfigError":
		return "create the Secret or ConfigMap that it names"
	case "CreateContainerError", "RunContainerError":
		return "look at its volumes and its runtime class: `kubectl describe pod " + pod.Name + "`"
	}
	return "`kubectl logs " + pod.Name + " -c " + name + " --previous`"
}

// schedulerAnswers is the scheduler's own word on itself, classes and workers.
func schedulerAnswers(_ context.Context, p *Patient) []Finding {
	f := p.facts
	if f.scheduler == nil {
		return []Finding{{Level: Fail, On: "namespace " + p.Namespace, What: "no scheduler is installed", Remedy: "apply an overlay (`ffpod init` writes one), or name the install's namespace with --namespace"}}
	}
	if f.status == nil {
		return nil // said by read, or by pods
	}
	s := f.status
	var found []Finding
	for _, why := range s.NotReady {
		found = append(found, Finding{Level: Fail, On: "scheduler " + s.Pod, What: "it is not ready", Why: why, Remedy: "`kubectl logs deploy/" + f.scheduler.Name + "`"})
	}
	for _, c := range s.Classes {
		on := "class " + c.Name
		switch level := Warn; {
		case !c.Usable:
			level = Fail
			fallthrough
		case len(c.Problems) > 0:
			found = append(found, Finding{Level: level, On: on, What: strings.Join(c.Problems, "; "), Remedy: "correct Deployment " + c.Deployment + "; kustomize/README.md lists its annotations"})
		case c.Replicas == 0 && c.Jobs == 0:
			found = append(found, Finding{Level: Warn, On: on, What: "it has neither warm workers nor Jobs: it takes no session", Remedy: "`kubectl scale deploy/" + c.Deployment + " --replicas=1`, or raise ffpod.dev/jobs"})
		}
	}
	if len(s.Classes) == 0 {
		found = append(found, Finding{Level: Fail, On: "scheduler " + s.Pod, What: "it sees no class", Why: "no Deployment of this namespace has the label ffpod.dev/class", Remedy: "list a component such as class-cpu in the overlay"})
	}
	for _, w := range s.Workers {
		if !w.Ready && !w.Draining && w.Role == "warm" {
			found = append(found, Finding{Level: Fail, On: "worker " + w.Pod, What: "its channel does not answer", Why: "the scheduler's pods/exec to it fails, or the supervisor is not PID 1 there", Remedy: "`kubectl logs deploy/" + f.scheduler.Name + " | grep " + w.Pod + "`"})
		}
	}
	if len(found) == 0 {
		found = append(found, ok("scheduler "+s.Pod, "%s, %d classes, %d workers", s.Version, len(s.Classes), len(s.Workers)))
	}
	return found
}

// trust checks the certificate that callers verify: published, alive, presented.
func trust(ctx context.Context, p *Patient) []Finding {
	pods := podsOf(p.facts, cluster.SchedulerLabels)
	if len(pods) == 0 {
		return []Finding{unknown("scheduler", "its certificate cannot be checked", errNotThere)}
	}
	self, err := server.FindSelf(ctx, p.Client, p.Namespace, pods[0].Name)
	if err != nil {
		return []Finding{{Level: Fail, On: "scheduler", What: "its objects cannot be found", Why: err.Error(), Remedy: "apply the overlay again"}}
	}
	on := "ConfigMap " + self.ConfigMap
	cm, err := p.Client.CoreV1().ConfigMaps(p.Namespace).Get(ctx, self.ConfigMap, metav1.GetOptions{})
	if err != nil {
		return []Finding{{Level: Fail, On: on, What: "it cannot be read", Why: err.Error(), Remedy: "apply the overlay again; the scheduler fills it"}}
	}
	pool, last, n := x509.NewCertPool(), time.Time{}, 0
	for rest := []byte(cm.Data["ca.crt"]); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			pool.AddCert(cert)
			n++
			if cert.NotAfter.After(last) {
				last = cert.NotAfter
			}
		}
	}
	switch {
	case n == 0 || cm.Data["address"] == "":
		return []Finding{{Level: Fail, On: on, What: "the scheduler has published no CA or no address in it", Why: "without both no shim finds it; a GitOps controller that owns `data` wipes them",
			Remedy: "leave `data` out of the manifest, use server-side apply, and `kubectl rollout restart deploy/" + p.facts.scheduler.Name + "`"}}
	case last.Before(p.Now()):
		return []Finding{{Level: Fail, On: on, What: "every CA in it has expired, the last at " + last.Format(time.RFC3339), Remedy: "look at the scheduler's log and the clocks of the nodes"}}
	}
	if p.Dial == nil {
		return []Finding{ok(on, "CA until %s, address %s", last.Format(time.DateOnly), cm.Data["address"])}
	}
	if err := handshake(ctx, p, pods[0], pool); err != nil {
		if strings.Contains(err.Error(), "forward") {
			return []Finding{unknown("scheduler", "its certificate could not be asked for", err)}
		}
		return []Finding{{Level: Fail, On: "scheduler " + pods[0].Name, What: "callers cannot trust it", Why: err.Error(), Remedy: "with tls.mode secret, let ca.crt of the Secret be the issuer of tls.crt, for the name " + server.ServerName}}
	}
	return []Finding{ok(on, "the CA is published until %s and the scheduler's certificate is of it", last.Format(time.DateOnly))}
}

func handshake(ctx context.Context, p *Patient, pod corev1.Pod, roots *x509.CertPool) error {
	port := 7443
	for _, c := range pod.Spec.Containers {
		for _, q := range c.Ports {
			if q.Name == "grpc" {
				port = int(q.ContainerPort)
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	raw, err := p.Dial(ctx, pod.Name, port)
	if err != nil {
		return err
	}
	defer raw.Close()
	conn := tls.Client(raw, &tls.Config{RootCAs: roots, ServerName: server.ServerName, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}})
	return conn.HandshakeContext(ctx)
}

// callers checks what every shim needs: account, token, CA, real binary, shared
// directories.
func callers(ctx context.Context, p *Patient) []Finding {
	f := p.facts
	if len(f.callers) == 0 {
		return []Finding{{Level: Warn, On: "namespace " + p.Namespace, What: "no running pod has the shim", Remedy: "give it to the caller with an init container `ffpod install shim DIR`: docs/shim.md"}}
	}
	var found []Finding
	for _, c := range f.callers {
		bad := caller(ctx, p, c)
		if len(bad) == 0 {
			bad = []Finding{ok("pod "+c.Pod.Name, "shim %s, account %s, audience %s", c.Shim, c.Pod.Spec.ServiceAccountName, c.Audience)}
		}
		found = append(found, bad...)
	}
	return found
}

func caller(ctx context.Context, p *Patient, c cluster.Caller) (found []Finding) {
	f, on := p.facts, "pod "+c.Pod.Name
	auth := f.configuration.Auth
	if account := c.Pod.Spec.ServiceAccountName; !slices.Contains(auth.AllowedServiceAccounts, account) {
		found = append(found, Finding{Level: Fail, On: on, What: "its ServiceAccount " + account + " may not open sessions", Why: "the scheduler allows " + strings.Join(auth.AllowedServiceAccounts, ", "),
			Remedy: "add it to auth.allowedServiceAccounts in scheduler.yaml and `kubectl rollout restart deploy/" + f.scheduler.Name + "`"})
	}
	switch c.Audience {
	case auth.Audience:
	case "":
		found = append(found, Finding{Level: Fail, On: on, What: "it mounts no token for the shim", Remedy: "project a serviceAccountToken with audience " + auth.Audience + ", path token, at /var/run/ffpod"})
	default:
		found = append(found, Finding{Level: Fail, On: on, What: "its token is for audience " + c.Audience, Why: "the scheduler wants " + auth.Audience, Remedy: "make the two equal: the projected volume's audience, or auth.audience in scheduler.yaml"})
	}
	spec, _ := container(c.Pod.Spec, c.Container)
	if mode := env(spec, "FFPOD_MODE"); mode == "local" {
		found = append(found, Finding{Level: Warn, On: on, What: "FFPOD_MODE is local: nothing runs on workers", Remedy: "remove it, or set it to auto"})
	}
	if env(spec, "FFPOD_SHARED") == "" {
		found = append(found, Finding{Level: Warn, On: on, What: "FFPOD_SHARED is not set: nothing with files runs on workers", Remedy: "list the directories that workers mount too, e.g. FFPOD_SHARED=/media:/cache/transcodes"})
	}
	if c.Pod.Labels["app.kubernetes.io/name"] == "jellyfin" && env(spec, "JELLYFIN_FFMPEG") != c.Shim {
		found = append(found, Finding{Level: Fail, On: on, What: fmt.Sprintf("JELLYFIN_FFMPEG is %q, so Jellyfin does not use the shim", env(spec, "JELLYFIN_FFMPEG")), Remedy: "set it to " + c.Shim})
	}
	if p.Exec == nil {
		return found
	}
	// The files, as the process sees them: an optional volume may be empty.
	for _, name := range []string{"token", "ca.crt", "address"} {
		out, err := p.Exec(ctx, c.Pod.Name, c.Container, "test", "-s", "/var/run/ffpod/"+name)
		if err != nil {
			return append(found, unknown(on, "nothing can be executed in it", err))
		}
		if out.Code == 1 && env(spec, "FFPOD_TOKEN_FILE")+env(spec, "FFPOD_CA_FILE")+env(spec, "FFPOD_ADDRESS") == "" {
			found = append(found, Finding{Level: Fail, On: on, What: "/var/run/ffpod/" + name + " is missing or empty", Remedy: "mount the ConfigMap ffpod-client and a token there, as kustomize/components/demo/client.yaml does; a new ConfigMap shows after a minute"})
		}
	}
	return found
}

// dns resolves the scheduler's published name where callers are.
func dns(ctx context.Context, p *Patient) []Finding {
	pods := podsOf(p.facts, cluster.SchedulerLabels)
	if len(p.facts.callers) == 0 || len(pods) == 0 || p.Exec == nil {
		return nil
	}
	self, err := server.FindSelf(ctx, p.Client, p.Namespace, pods[0].Name)
	if err != nil {
		return []Finding{unknown("scheduler", "its address is not known", err)}
	}
	cm, err := p.Client.CoreV1().ConfigMaps(p.Namespace).Get(ctx, self.ConfigMap, metav1.GetOptions{})
	if err != nil {
		return []Finding{unknown("scheduler", "its address is not known", err)}
	}
	host, _, err := net.SplitHostPort(cm.Data["address"])
	if err != nil {
		return nil // said by trust
	}
	var found []Finding
	for _, c := range p.facts.callers {
		on := "pod " + c.Pod.Name
		out, err := p.Exec(ctx, c.Pod.Name, c.Container, "getent", "ahosts", host)
		switch {
		case err != nil:
			found = append(found, unknown(on, "nothing can be executed in it", err))
		case out.Code == 126 || out.Code == 127:
			found = append(found, Finding{Level: Unknown, On: on, What: "it has no getent to ask with"})
		case out.Code != 0 || strings.TrimSpace(out.Stdout) == "":
			found = append(found, Finding{Level: Fail, On: on, What: "the name " + host + " is not resolved", Why: strings.TrimSpace(out.Stderr),
				Remedy: "let the pod reach the cluster's DNS (UDP and TCP 53 to kube-dns in its NetworkPolicies); with hostNetwork set dnsPolicy: ClusterFirstWithHostNet"})
		default:
			found = append(found, ok(on, "%s is %s", host, strings.Fields(out.Stdout)[0]))
		}
	}
	return found
}
