package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ffpod/ffpod/podexec"
	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/scheduler"
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/config"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
	"github.com/ffpod/ffpod/scheduler/job"
	"github.com/ffpod/ffpod/scheduler/lease"
	"github.com/ffpod/ffpod/scheduler/placement"
	"github.com/ffpod/ffpod/scheduler/pool"
	"github.com/ffpod/ffpod/scheduler/scale"
	"github.com/ffpod/ffpod/scheduler/server"
	"github.com/ffpod/ffpod/scheduler/standby"
	"github.com/ffpod/ffpod/scheduler/store"
)

// parts is the scheduler, put together.
type parts struct {
	conf config.Configuration
	log  *zap.Logger

	classes      *class.Watcher
	pool         *pool.Pool
	jobs         *job.Launcher
	standbys     *standby.Maker
	scaler       *scale.Scaler
	scheduler    *scheduler.Scheduler
	certificates *server.Certificates
	auth         *server.Authenticator
	policies     *server.Policies
	server       *server.Server
	health       *server.Health
	operators    *server.Operators

	sessions, http net.Listener
	loopback       net.Listener  // for operators; nil: they are not served
	draining       chan struct{} // closed when the end has begun
}

// build makes every part and opens the listeners; nothing runs yet.
func build(ctx context.Context, conf config.Configuration, getenv func(string) string, log *zap.Logger) (*parts, error) {
	rc, client, self, err := cluster(ctx, getenv)
	if err != nil {
		return nil, err
	}
	log.Info("scheduler", zap.String("version", version), zap.String("namespace", self.Namespace), zap.String("pod", self.Pod),
		zap.String("secret", self.Secret), zap.String("configMap", self.ConfigMap))
	p := &parts{conf: conf, log: log, draining: make(chan struct{})}
	open := lease.Dial(&podexec.Dialer{Config: rc, Client: client})
	if p.classes, err = class.NewWatcher(class.Config{Client: client, Namespace: self.Namespace, Log: log}); err != nil {
		return nil, err
	}
	if p.pool, err = pool.New(pool.Config{Client: client, Namespace: self.Namespace, Open: open, Log: log}); err != nil {
		return nil, err
	}
	if p.jobs, err = job.New(job.Config{Client: client, Namespace: self.Namespace, Open: open, Log: log, Grace: conf.Session.Grace.Duration}); err != nil {
		return nil, err
	}
	p.standbys = standby.New(standby.Config{List: p.classes.List, Jobs: p.jobs, Unplaced: p.pool.Unplaced, Log: log})
	metrics, inForce := scheduler.NewMetrics(), server.NewPolicyMetric()
	if p.scheduler, err = scheduler.New(scheduler.Config{
		Namespace: self.Namespace, Version: version,
		Classes: p.classes, Pool: p.pool, Jobs: p.jobs, Standbys: p.standbys, Unable: p.unable, Metrics: metrics, Log: log,
		CallerLimit: conf.Queue.PerCaller, Fallback: fallbacks(conf.Placement.Fallback),
		Store:  store.NewMemory(store.MemoryConfig{Limit: conf.Queue.Limit, History: conf.Session.History}),
		Policy: placement.Policy(conf.Placement.Policy), SameBuild: conf.Placement.Builds == "same",
		Wait: conf.Queue.Timeout.Duration, JobStart: conf.Session.JobStart.Duration, Grace: conf.Session.Grace.Duration,
		Link: session.LinkOptions{Undecoded: true},
	}); err != nil {
		return nil, err
	}
	p.scaler = scale.New(scale.Config{
		Client: client, Namespace: self.Namespace, List: p.classes.List, Pool: p.pool, Waiting: p.scheduler.Waiting, Unable: p.pool.Unable, Log: log,
		Window: conf.Scale.Idle.Duration,
	})
	p.secure(client, self, inForce)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), metrics, p.scheduler.Gauges(), inForce, p.scaler)
	p.health = &server.Health{Checks: p.checks(), Metrics: registry}
	p.operators = &server.Operators{Status: p.scheduler.Status, Prove: p.scheduler.Prove, Checks: p.health.Checks, Policies: p.policies.Last, Pod: self.Pod, Log: log}
	return p, p.listen()
}

// listen opens the listeners, all or none.
func (p *parts) listen() (err error) {
	if p.sessions, err = net.Listen("tcp", p.conf.Listen.GRPC); err != nil {
		return fmt.Errorf("listen for sessions: %w; change listen.grpc", err)
	}
	if p.http, err = net.Listen("tcp", p.conf.Listen.HTTP); err != nil {
		return errors.Join(fmt.Errorf("listen for health: %w; change listen.http", err), p.sessions.Close())
	}
	if p.conf.Listen.Operators == "" {
		return nil
	}
	if p.loopback, err = net.Listen("tcp", p.conf.Listen.Operators); err != nil {
		return errors.Join(fmt.Errorf("listen for operators: %w; change listen.operators", err), p.sessions.Close(), p.http.Close())
	}
	return nil
}

// secure makes the parts that keep strangers out.
func (p *parts) secure(client kubernetes.Interface, self server.Self, inForce *prometheus.GaugeVec) {
	conf, directory := p.conf, ""
	if conf.TLS.Mode == config.TLSSecret {
		directory = conf.TLS.Directory
	}
	p.certificates = server.NewCertificates(server.CertificatesConfig{
		Client: client, Self: self, Directory: directory, Egress: p.egress, Log: p.log,
		Lifetimes: server.Lifetimes{CA: conf.TLS.CALifetime.Duration, Serving: conf.TLS.ServingLifetime.Duration, Publish: conf.TLS.Publish.Duration},
	})
	p.auth = server.NewAuthenticator(server.AuthConfig{
		Client: client, Namespace: self.Namespace, Audience: conf.Auth.Audience, Allowed: conf.Auth.AllowedServiceAccounts, Log: p.log,
	})
	p.policies = &server.Policies{Client: client, Self: self, Log: p.log, InForce: inForce}
	p.server = server.New(server.Config{Sessions: p.scheduler, Fences: p.scheduler, Authenticator: p.auth, Certificate: p.certificates.Certificate, Log: p.log})
}

// egress is the most that any class may reach, once the classes are known.
func (p *parts) egress() (most ffmpeg.Egress, known bool) {
	for _, c := range p.classes.List() {
		if most != ffmpeg.AnyEgress && c.Egress != ffmpeg.NoEgress {
			most = c.Egress
		}
	}
	return most, p.classes.Synced()
}

// unable is why pods of a class do not run now, in Kubernetes' words.
func (p *parts) unable(name string) string {
	c, _ := p.classes.Get(name)
	return cmp.Or(p.jobs.Unable(name), p.pool.Unable(name), c.Unable)
}

// fallbacks are the configured ones in placement's words.
func fallbacks(by map[string]config.Fallback) map[string]placement.Fallback {
	then := map[string]placement.Verdict{"wait": placement.Wait, "local": placement.Local, "fail": placement.Reject}
	all := map[string]placement.Fallback{}
	for kind, f := range by {
		all[kind] = placement.Fallback{Then: then[f.Then], After: f.After.Duration}
	}
	return all
}

// checks are the conditions of readiness.
func (p *parts) checks() []server.Check {
	unless := func(ok func() bool, words string) func() error {
		return func() error {
			if ok() {
				return nil
			}
			return errors.New(words)
		}
	}
	return []server.Check{
		{Name: "running", Ready: func() error {
			select {
			case <-p.draining:
				return errors.New("shutting down")
			default:
				return nil
			}
		}},
		{Name: "sessions", Ready: p.server.Ready},
		{Name: "certificate", Ready: p.certificates.Ready},
		{Name: "classes", Ready: unless(p.classes.Synced, "the Deployments have not been read yet")},
		{Name: "workers", Ready: unless(func() bool { return p.pool.Ready() && p.jobs.Ready() }, "not every worker has answered yet; the silent ones count as full 5 s after the start")},
	}
}

// run runs every part until ctx is done or one fails, then drains.
func (p *parts) run(ctx context.Context) error {
	// The parts outlive ctx: sessions are told of the end over them.
	group, alive := errgroup.WithContext(context.WithoutCancel(ctx))
	alive, end := context.WithCancel(alive)
	defer end()
	for _, part := range []func(context.Context) error{
		p.classes.Run, p.pool.Run, p.jobs.Run, p.standbys.Run, p.scaler.Run, p.scheduler.Run, p.certificates.Run, p.policies.Run, p.probe,
		func(ctx context.Context) error { return p.health.Serve(ctx, p.http) },
	} {
		group.Go(func() error { return part(alive) })
	}
	if p.loopback != nil {
		group.Go(func() error { return p.operators.Serve(alive, p.loopback) })
	}
	group.Go(func() error { return p.server.Serve(p.sessions) })
	select {
	case <-ctx.Done():
	case <-alive.Done(): // a part failed: Wait says which
	}
	done := make(chan error, 1)
	go func() {
		p.drain(alive)
		end()
		done <- group.Wait()
	}()
	select {
	case err := <-done:
		p.log.Info("stopped")
		return err
	case <-time.After(p.conf.DrainTimeout.Duration):
		p.log.Warn("stopped before everything was put down", zap.Duration("after", p.conf.DrainTimeout.Duration))
		return nil
	}
}

// drain refuses what is new and detaches what runs, without waiting for it.
func (p *parts) drain(ctx context.Context) {
	close(p.draining)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.conf.DrainTimeout.Duration/2)
	defer cancel()
	if err := p.scheduler.Drain(ctx); err != nil {
		p.log.Warn("not every session could be told", zap.Error(err))
	}
	p.server.Stop()
}

// probe says at the start how callers will be authenticated.
func (p *parts) probe(ctx context.Context) error {
	for {
		err := p.auth.Probe(ctx)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		p.log.Warn("callers cannot be authenticated yet; trying again", zap.Error(err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(5 * time.Second):
		}
	}
}

// cluster connects, and finds out what this install is called.
func cluster(ctx context.Context, getenv func(string) string) (*rest.Config, kubernetes.Interface, server.Self, error) {
	kubeconfig := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), nil)
	rc, err := kubeconfig.ClientConfig() // falls back to the pod's ServiceAccount
	if err != nil {
		return nil, nil, server.Self{}, fmt.Errorf("find the cluster: %w; run in a pod or set KUBECONFIG", err)
	}
	rc.QPS, rc.Burst, rc.UserAgent = 50, 100, "ffpod-scheduler/"+version
	client, err := kubernetes.NewForConfig(rc)
	if err != nil {
		return nil, nil, server.Self{}, fmt.Errorf("connect to %s: %w", rc.Host, err)
	}
	namespace, pod := getenv("POD_NAMESPACE"), getenv("POD_NAME")
	if namespace == "" {
		if namespace, _, err = kubeconfig.Namespace(); err != nil {
			return nil, nil, server.Self{}, fmt.Errorf("find the namespace: %w; set POD_NAMESPACE", err)
		}
	}
	if pod == "" { // for development: the names that kustomize/base gives
		return rc, client, server.Self{Namespace: namespace, Secret: "ffpod-tls", ConfigMap: "ffpod-client"}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	self, err := server.FindSelf(ctx, client, namespace, pod)
	return rc, client, self, err
}
