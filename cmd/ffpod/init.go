package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ffpod/ffpod/cmd/ffpod/overlay"
)

func newInit() *cobra.Command {
	choices := overlay.Default()
	var vendor, fresh bool
	var values, release string
	c := &cobra.Command{
		Use:   "init [DIR]",
		Short: "Write a small overlay directory for an install of Jellyfin: for git, kubectl -k, Argo CD, Flux",
		Long: "Init writes kustomization.yaml, settings.yaml with every setting explained, namespace.yaml and a README into DIR\n" +
			"(jellyfin). On a terminal it asks for what no flag says; else the defaults count. It overwrites nothing, and needs\n" +
			"neither a cluster nor the network.\n\n" +
			"With --from-values it takes the choices from a values.yaml of the Helm chart ClusterJellyfin, uses that install's\n" +
			"claims and database, and says of each value what became of it.",
		Example: "  ffpod init --gpu nvidia --media nfs --media-nfs nas:/export/media --shared class --shared-class longhorn films\n" +
			"  ffpod init --from-values values.yaml --release jellyfin films",
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			dir := "jellyfin"
			if len(args) > 0 {
				dir = args[0]
			}
			if values != "" {
				v := overlay.Values{Release: release, Fresh: fresh, Version: version}
				if c.Flags().Changed("namespace") {
					v.Namespace = choices.Namespace
				}
				for _, flag := range []string{"gpu", "media", "shared", "database", "exposure", "user", "group", "host", "worker-nodes", "jellyfin-nodes", "scheduler-issuer", "scaled"} {
					if c.Flags().Changed(flag) {
						return &usageError{err: fmt.Errorf("init: --%s goes not with --from-values, which says it already; edit settings.yaml afterwards", flag)}
					}
				}
				return initFromValues(c, dir, values, v, vendor, choices.Registry)
			}
			if in, ok := c.InOrStdin().(*os.File); ok && term.IsTerminal(int(in.Fd())) {
				if err := ask(c, in, &choices); err != nil {
					return fmt.Errorf("init: %w", err)
				}
			}
			p, err := overlay.New(choices, version)
			if err != nil {
				return &usageError{err: fmt.Errorf("init: %w", oneLine(err))}
			}
			p.Vendor = vendor
			return writePlan(c, p, dir)
		},
	}
	f := c.Flags()
	list := func(all []string) string { return strings.Join(all, ", ") }
	f.StringVarP(&choices.Namespace, "namespace", "n", choices.Namespace, "the install's")
	f.BoolVar(&choices.NamespaceOnly, "namespace-only", false, "leave out what only a cluster's admin may apply")
	f.StringSliceVar(&choices.GPUs, "gpu", choices.GPUs, "the workers' hardware, one or several: "+list(overlay.GPUs))
	f.StringVar(&choices.GPUResource, "gpu-resource", "", "the first GPU's name among a node's resources, such as nvidia.com/gpu.shared")
	f.BoolVar(&choices.RuntimeClass, "runtime-class-nvidia", false, "runtimeClassName: nvidia, for k3s")
	f.StringVar(&choices.DeviceClass, "device-class", choices.DeviceClass, "the DeviceClass of --gpu dra")
	f.StringVar(&choices.Media, "media", choices.Media, "the library: "+list(overlay.Medias))
	f.StringVar(&choices.MediaNFS, "media-nfs", "", "its export, SERVER:/PATH")
	f.StringVar(&choices.MediaClaim, "media-claim", "", "its claim, which exists")
	f.StringVar(&choices.Shared, "shared", choices.Shared, "where Jellyfin and workers exchange files: "+list(overlay.Shareds))
	f.StringVar(&choices.SharedNFS, "shared-nfs", "", "the export, SERVER:/PATH")
	f.StringVar(&choices.SharedClass, "shared-class", "", "the StorageClass, with ReadWriteMany")
	f.StringVar(&choices.ConfigClass, "config-class", "", "the StorageClass of Jellyfin's own claim, block or local")
	f.StringVar(&choices.Database, "database", choices.Database, "Jellyfin's: "+list(overlay.Databases))
	f.StringVar(&choices.DatabaseSecret, "database-secret", "", "the Secret of postgres-external")
	f.StringVar(&choices.Exposure, "exposure", choices.Exposure, "how clients reach it: "+list(overlay.Exposures))
	f.StringVar(&choices.Host, "host", "", "the name by which they do")
	f.StringVar(&choices.IngressClass, "ingress-class", "", "instead of the controller's usual one")
	f.StringVar(&choices.TLSSecret, "tls-secret", "", "the ingress's certificate")
	f.StringVar(&choices.Issuer, "issuer", "", "the certificate from cert-manager: NAME of a ClusterIssuer, or KIND/NAME")
	f.StringVar(&choices.Gateway, "gateway", "", "NAMESPACE/NAME of the Gateway")
	f.StringSliceVar(&choices.WorkerNodes, "worker-nodes", nil, "the only nodes for workers, by their label kubernetes.io/hostname; with --jellyfin-nodes")
	f.StringSliceVar(&choices.JellyfinNodes, "jellyfin-nodes", nil, "the only nodes for Jellyfin, where its claim can be; with --worker-nodes")
	f.StringVar(&choices.SchedulerIssuer, "scheduler-issuer", "", "the scheduler's certificate from cert-manager, by a private CA: NAME of a ClusterIssuer, or KIND/NAME")
	f.BoolVar(&choices.Scaled, "scaled", false, "leave the number of warm workers to a HorizontalPodAutoscaler, KEDA or kubectl scale")
	f.Int64Var(&choices.User, "user", choices.User, "the user ID of Jellyfin, workers and backups")
	f.Int64Var(&choices.Group, "group", choices.Group, "their group ID")
	f.Int64SliceVar(&choices.Groups, "groups", nil, "their further groups, such as the nodes' render group")
	f.StringVar(&choices.TimeZone, "time-zone", choices.TimeZone, "Jellyfin's")
	f.BoolVar(&choices.Recordings, "recordings", false, "a claim for recordings of live TV")
	f.BoolVar(&choices.Backup, "backup", choices.Backup, "a backup each night")
	f.BoolVar(&choices.NetworkPolicy, "network-policy", false, "network policies for Jellyfin, beside the workers'")
	f.StringVar(&choices.Registry, "registry", "", "where ffpod's images are, such as registry.example.org/ffpod")
	f.BoolVar(&vendor, "vendor", false, "copy the manifests into DIR, instead of referring to the repository")
	f.StringVar(&values, "from-values", "", "a values.yaml of ClusterJellyfin")
	f.StringVar(&release, "release", "jellyfin", "the name of its Helm release, for --from-values")
	f.BoolVar(&fresh, "fresh", false, "with --from-values: make new claims, even if that release has some")
	return c
}

// oneLine makes joined errors one.
func oneLine(err error) error { return errors.New(strings.ReplaceAll(err.Error(), "\n", "; ")) }

func writePlan(c *cobra.Command, p overlay.Plan, dir string) error {
	files, err := p.Write(dir)
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	for _, file := range files {
		if shown, err := filepath.Rel(dir, file); err == nil && !strings.HasPrefix(filepath.ToSlash(shown), "ffpod/") {
			fmt.Fprintln(c.OutOrStdout(), "wrote", file)
		}
	}
	if p.Vendor {
		fmt.Fprintln(c.OutOrStdout(), "wrote", filepath.Join(dir, "ffpod"), "(the manifests)")
	}
	for _, note := range p.Notes {
		fmt.Fprintln(c.OutOrStdout(), "to do:", note)
	}
	if len(p.Secrets) > 0 && !p.Choices.NamespaceOnly {
		fmt.Fprintln(c.OutOrStdout(), "first: kubectl apply -f", filepath.Join(dir, "namespace.yaml"))
	}
	for _, s := range p.Secrets {
		fmt.Fprintf(c.OutOrStdout(), "then: %s: %s\n", s.For, s.Command)
	}
	fmt.Fprintf(c.OutOrStdout(), "next: edit %s, then ffpod render %s | kubectl apply --server-side -f -\n", filepath.Join(dir, "settings.yaml"), dir)
	return nil
}

func initFromValues(c *cobra.Command, dir, file string, v overlay.Values, vendor bool, registry string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	p, report, err := v.Plan(file, text)
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	p.Vendor, p.Choices.Registry = vendor, registry
	for _, line := range report {
		fmt.Fprintln(c.OutOrStdout(), line)
	}
	return writePlan(c, p, dir)
}

// ask asks for what no flag has said, one line each; an empty answer takes what is
// in brackets. Answers that need another one ask for that, too.
func ask(c *cobra.Command, in io.Reader, choices *overlay.Choices) error {
	q := questions{in: bufio.NewScanner(in), out: c.ErrOrStderr(), given: c.Flags().Changed}
	gpu := strings.Join(choices.GPUs, ",")
	q.text("namespace", "Namespace", &choices.Namespace)
	q.choice("gpu", "GPU of the workers", &gpu, overlay.GPUs)
	if !q.given("gpu") {
		choices.GPUs = strings.Split(gpu, ",")
	}
	if gpu == "dra" {
		q.text("device-class", "DeviceClass (kubectl get deviceclasses)", &choices.DeviceClass)
	}
	if slices.Contains(choices.GPUs, "nvidia") {
		q.yes("runtime-class-nvidia", "k3s, or another cluster where pods need runtimeClassName: nvidia", &choices.RuntimeClass)
	}
	q.list("worker-nodes", "Nodes for workers, a comma list (kubectl get nodes -L kubernetes.io/hostname), empty for all", &choices.WorkerNodes)
	if len(choices.WorkerNodes) > 0 {
		q.list("jellyfin-nodes", "Nodes for Jellyfin, where its claim can be", &choices.JellyfinNodes)
	}
	q.yes("scaled", "The number of workers is set by others (HorizontalPodAutoscaler, KEDA)", &choices.Scaled)
	q.choice("media", "Library", &choices.Media, overlay.Medias)
	switch choices.Media {
	case "nfs":
		q.text("media-nfs", "Its NFS export, SERVER:/PATH", &choices.MediaNFS)
	case "claim":
		q.text("media-claim", "Its claim in the namespace", &choices.MediaClaim)
	}
	q.choice("shared", "Storage that Jellyfin and workers share (default and class: ReadWriteMany)", &choices.Shared, overlay.Shareds)
	switch choices.Shared {
	case "nfs":
		q.text("shared-nfs", "Its NFS export, SERVER:/PATH", &choices.SharedNFS)
	case "class":
		q.text("shared-class", "Its StorageClass", &choices.SharedClass)
	}
	q.choice("database", "Database", &choices.Database, overlay.Databases)
	if choices.Database == "postgres-external" {
		q.text("database-secret", "Its Secret", &choices.DatabaseSecret)
	}
	q.choice("exposure", "How clients reach it", &choices.Exposure, overlay.Exposures)
	ingress := strings.HasPrefix(choices.Exposure, "ingress")
	if ingress || choices.Exposure == "gateway" {
		q.text("host", "By which name", &choices.Host)
	}
	if choices.Exposure == "ingress" {
		q.text("ingress-class", "Ingress class (kubectl get ingressclass)", &choices.IngressClass)
	}
	if ingress {
		q.text("tls-secret", "Secret of its certificate, empty for none", &choices.TLSSecret)
	}
	if choices.Exposure == "gateway" {
		q.text("gateway", "Gateway, NAMESPACE/NAME", &choices.Gateway)
	}
	q.number("user", "User ID of Jellyfin and workers, who owns the files", &choices.User)
	q.number("group", "Group ID", &choices.Group)
	return q.err
}

// questions keeps the first error, so that the asking reads as a list.
type questions struct {
	in    *bufio.Scanner
	out   io.Writer
	given func(flag string) bool
	err   error
}

// until asks until the answer is taken.
func (q *questions) until(flag, question, preset string, take func(string) string) {
	for q.err == nil && !q.given(flag) {
		fmt.Fprintf(q.out, "%s [%s]: ", question, preset)
		if !q.in.Scan() {
			if q.err = q.in.Err(); q.err == nil {
				q.err = fmt.Errorf("the input ended at the question for --%s; nothing is written", flag)
			}
			return
		}
		answer := strings.TrimSpace(q.in.Text())
		if answer == "" {
			answer = preset
		}
		problem := take(answer)
		if problem == "" {
			return
		}
		fmt.Fprintln(q.out, " ", problem)
	}
}

func (q *questions) text(flag, question string, v *string) {
	q.until(flag, question, *v, func(s string) string { *v = s; return "" })
}

func (q *questions) choice(flag, question string, v *string, allowed []string) {
	q.until(flag, question+": "+strings.Join(allowed, ", "), *v, func(s string) string {
		if !slices.Contains(allowed, s) {
			return fmt.Sprintf("%q; allowed: %s", s, strings.Join(allowed, ", "))
		}
		*v = s
		return ""
	})
}

func (q *questions) list(flag, question string, v *[]string) {
	q.until(flag, question, strings.Join(*v, ","), func(s string) string {
		*v = strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
		return ""
	})
}

func (q *questions) number(flag, question string, v *int64) {
	q.until(flag, question, strconv.FormatInt(*v, 10), func(s string) string {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 1 {
			return fmt.Sprintf("%q; allowed: a number from 1", s)
		}
		*v = n
		return ""
	})
}

func (q *questions) yes(flag, question string, v *bool) {
	q.until(flag, question, map[bool]string{true: "yes", false: "no"}[*v], func(s string) string {
		switch strings.ToLower(s) {
		case "y", "yes":
			*v = true
		case "n", "no":
			*v = false
		default:
			return fmt.Sprintf("%q; allowed: yes, no", s)
		}
		return ""
	})
}
