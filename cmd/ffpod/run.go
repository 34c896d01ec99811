package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/ffpod/ffpod/cmd/ffmpeg/decision"
	"github.com/ffpod/ffpod/cmd/ffpod/cluster"
	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
	"github.com/ffpod/ffpod/scheduler/server"
)

// infrastructure is the exit code for what ffpod itself could not do, as the shim's.
const infrastructure = 125

// exitError is the exit of a program that ran.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit %d", e.code) }

// remote is one command of an operator's on a worker.
type remote struct {
	as, class, policy, dir string
	wait                   time.Duration
	verbose                bool
	stdin                  io.Reader
	stdout, stderr         io.Writer
}

func newRun() *cobra.Command {
	var r remote
	c := &cobra.Command{
		Use:   "run [-n NAMESPACE] [--class CLASS] [--policy POLICY] [--as deploy/NAME] -- ffmpeg ARGS...",
		Short: "Run ffmpeg on a worker, with this terminal's stdin, stdout, stderr and exit code",
		Long: "Run speaks the shim's protocol to the scheduler over a port-forward: bytes are exact or the exit is 125, also\n" +
			"when the connection breaks. Files are the workers': paths must lie where the classes mount claims, and nothing\n" +
			"of this machine is read or written but stdin, stdout and stderr.\n\n" +
			"The session is a caller pod's, Jellyfin's unless told: a token for its account is asked for, bound to that pod.\n" +
			"It needs pods/portforward to the scheduler and serviceaccounts/token, which the roles admin and edit hold.",
		Example: "  ffpod run -n media -- ffmpeg -i /media/film.mkv -t 10 -c:v libx264 -f mpegts - > ten-seconds.ts",
		Args:    usage(cobra.MinimumNArgs(1)),
	}
	open := clusterFlags(c)
	c.Flags().StringVar(&r.as, "as", "", "the pod, or the Deployment of the pod, whose account to use")
	c.Flags().StringVar(&r.class, "class", "", "the only class that may take it")
	c.Flags().StringVar(&r.policy, "policy", "", "warm-then-job, warm or job; instead of the scheduler's")
	c.Flags().StringVar(&r.dir, "dir", "/", "the working directory on the worker")
	c.Flags().DurationVar(&r.wait, "wait", 0, "the longest wait for a worker; instead of the scheduler's")
	c.Flags().BoolVarP(&r.verbose, "verbose", "v", false, "say on stderr which worker has it")
	c.Flags().SetInterspersed(false) // what follows the program is the program's
	c.RunE = func(c *cobra.Command, args []string) error {
		program, ok := decision.Program(args[0])
		if !ok {
			return &usageError{err: fmt.Errorf("run %q: only ffmpeg and ffprobe run on workers", args[0])}
		}
		r.stdin, r.stdout, r.stderr = c.InOrStdin(), c.OutOrStdout(), c.ErrOrStderr()
		on, err := open()
		if err != nil {
			return err
		}
		return r.run(c.Context(), on, program, args[1:])
	}
	return c
}

func (r remote) run(ctx context.Context, on *cluster.Cluster, program ffmpeg.Program, args []string) error {
	if err := r.possible(ctx, on, program, args); err != nil {
		return err
	}
	way, err := newWay(ctx, on, r.as)
	if err != nil {
		return err
	}
	defer way.close()
	start := &wire.Start{Session: string(uuid.NewUUID()), Program: wire.Program_FFMPEG, Cwd: []byte(r.dir), Umask: 0o022, Version: version,
		Policy: r.policy, Class: r.class, WaitMs: uint32(r.wait.Milliseconds()), Resumes: true}
	if program == ffmpeg.FFprobe {
		start.Program = wire.Program_FFPROBE
	}
	for _, a := range args {
		start.Argv = append(start.Argv, []byte(a))
	}
	signals := make(chan syscall.Signal, 16)
	ctx, stop := forward(ctx, signals)
	defer stop()
	client := &session.Client{Open: way.open, Start: start, Stdin: r.stdin, Stdout: r.stdout, Stderr: r.stderr, Signals: signals}
	if slices.Contains(args, "-nostdin") {
		client.Stdin = nil
	}
	if r.verbose {
		client.OnTicket = func(t *wire.Ticket) {
			fmt.Fprintf(r.stderr, "ffpod: session %s: worker %s of class %s on node %s (%s: %s)\n", t.GetSession(), t.GetPod(), t.GetClass(), t.GetNode(), t.GetPlacement(), t.GetReason())
		}
	}
	exit, err := client.Run(ctx)
	if err != nil {
		return ranNot(err)
	}
	if sig := exit.GetSignal(); sig != 0 {
		return &exitError{code: 128 + int(sig)}
	}
	if exit.GetCode() != 0 {
		return &exitError{code: int(exit.GetCode())}
	}
	return nil
}

// ranNot words why there is no exit of a program.
func ranNot(err error) error {
	if refused, ok := errors.AsType[*session.RefusedError](err); ok {
		if refused.Remedy != "" {
			return &infraError{fmt.Errorf("nothing ran: %s; %s", refused.Message, refused.Remedy)}
		}
		return &infraError{fmt.Errorf("nothing ran: %s", refused.Message)}
	}
	if st, ok := status.FromError(err); ok {
		return &infraError{errors.New(st.Message())}
	}
	return &infraError{err}
}

// infraError ends ffpod with code 125.
type infraError struct{ err error }

func (e *infraError) Error() string { return e.err.Error() }
func (e *infraError) Unwrap() error { return e.err }

// possible refuses what no worker could run: operands that no class mounts.
func (r remote) possible(ctx context.Context, on *cluster.Cluster, program ffmpeg.Program, args []string) error {
	shared, err := on.Shared(ctx, r.class)
	if err != nil {
		return err
	}
	e := ffmpeg.Explain(string(program), args, ffmpeg.Environment{Host: ffmpeg.Host{Dir: r.dir}, Shared: shared, Mode: ffmpeg.ForceRemote, Egress: ffmpeg.AnyEgress})
	if len(e.Problems) > 0 {
		return &infraError{fmt.Errorf("no worker could run it: %s; the classes of namespace %s mount claims at %s",
			strings.Join(e.Problems, "; "), on.Namespace, cmp.Or(strings.Join(shared, ", "), "no path at all"))}
	}
	return nil
}

// forward hands the terminal's signals to the program. A second interrupt ends the
// wait for it.
func forward(ctx context.Context, to chan<- syscall.Signal) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	caught := make(chan os.Signal, 16)
	signal.Notify(caught, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	done := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			case s := <-caught:
				if n > 0 {
					cancel(errors.New("interrupted twice"))
					continue
				}
				select {
				case to <- s.(syscall.Signal):
				default:
				}
			}
		}
	})
	return ctx, func() {
		signal.Stop(caught)
		close(done)
		wait.Wait()
		cancel(nil)
	}
}

// way is how a session reaches the scheduler: a connection of its own for each
// stream, over a port-forward.
type way struct {
	on       *cluster.Cluster
	caller   cluster.Caller
	audience string
	roots    *x509.CertPool

	conns []*grpc.ClientConn
}

func newWay(ctx context.Context, on *cluster.Cluster, as string) (*way, error) {
	caller, err := on.Caller(ctx, as)
	if err != nil {
		return nil, err
	}
	pod, err := on.Scheduler(ctx)
	if err != nil {
		return nil, err
	}
	self, err := server.FindSelf(ctx, on.Client, on.Namespace, pod.Name)
	if err != nil {
		return nil, err
	}
	trust, err := on.Client.CoreV1().ConfigMaps(on.Namespace).Get(ctx, self.ConfigMap, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read the scheduler's CA: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(trust.Data["ca.crt"])) {
		return nil, fmt.Errorf("ConfigMap %s/%s has no certificate in ca.crt; the scheduler writes it: see its log", on.Namespace, self.ConfigMap)
	}
	return &way{on: on, caller: caller, audience: cmp.Or(caller.Audience, "ffpod"), roots: roots}, nil
}

func (w *way) open(ctx context.Context) (session.Stream, error) {
	token, err := w.token(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("passthrough:///"+server.ServerName, append(session.DialOptions(),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: w.roots, ServerName: server.ServerName, MinVersion: tls.VersionTLS13})),
		grpc.WithPerRPCCredentials(token), grpc.WithContextDialer(w.dial))...)
	if err != nil {
		return nil, err
	}
	w.conns = append(w.conns, conn)
	return wire.NewRunnerClient(conn).Run(ctx)
}

// dial finds the scheduler anew: it may be another pod by now.
func (w *way) dial(ctx context.Context, _ string) (net.Conn, error) {
	pod, err := w.on.Scheduler(ctx)
	if err != nil {
		return nil, err
	}
	return w.on.Dial(ctx, pod.Name, portOf(pod, "grpc"))
}

func portOf(pod *corev1.Pod, name string) int {
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Name == name {
				return int(p.ContainerPort)
			}
		}
	}
	return 7443
}

func (w *way) token(ctx context.Context) (bearer, error) {
	account := w.caller.Pod.Spec.ServiceAccountName
	review, err := w.on.Client.CoreV1().ServiceAccounts(w.on.Namespace).CreateToken(ctx, account, &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{
		Audiences: []string{w.audience}, ExpirationSeconds: new(int64(600)),
		BoundObjectRef: &authv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: w.caller.Pod.Name, UID: w.caller.Pod.UID},
	}}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("a token of %s for pod %s: %w; it needs serviceaccounts/token (create)", account, w.caller.Pod.Name, err)
	}
	return bearer(review.Status.Token), nil
}

func (w *way) close() {
	for _, c := range w.conns {
		c.Close()
	}
}

// bearer adds the token to each RPC.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool { return true }
