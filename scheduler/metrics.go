package scheduler

import (
	"cmp"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ffpod/ffpod/podexec/wire"
)

// Metrics are what /metrics tells of sessions. It is a prometheus.Collector.
type Metrics struct {
	queue    prometheus.Gauge
	running  *prometheus.GaugeVec
	sessions *prometheus.CounterVec
	waits    prometheus.Histogram
	starts   *prometheus.HistogramVec
	resumes  prometheus.Counter
	detached prometheus.Counter
	orphans  prometheus.Counter
	fenced   prometheus.Counter
	pauses   prometheus.Counter
	stuck    prometheus.Gauge
	// fallbacks are sessions that got no worker.
	fallbacks *prometheus.CounterVec
}

// NewMetrics returns metrics that count from zero.
func NewMetrics() *Metrics {
	seconds := []float64{.002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300}
	return &Metrics{
		queue: prometheus.NewGauge(prometheus.GaugeOpts{Name: "ffpod_queue_length", Help: "Sessions that wait for a worker."}),
		running: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "ffpod_sessions_running",
			Help: "Sessions whose Start was sent and whose end is not known, by placement."}, []string{"placement"}),
		sessions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ffpod_sessions_total",
			Help: "Sessions that are over, by placement, kind and exit: zero, code, signal, lost, refused or cancelled."}, []string{"placement", "kind", "exit"}),
		waits: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ffpod_queue_seconds",
			Help: "From asking to the grant of a worker.", Buckets: seconds}),
		starts: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "ffpod_start_seconds",
			Help: "From asking to the start of the process, by placement.", Buckets: seconds}, []string{"placement"}),
		resumes: prometheus.NewCounter(prometheus.CounterOpts{Name: "ffpod_resumes_total",
			Help: "Streams that carried a running session on."}),
		detached: prometheus.NewCounter(prometheus.CounterOpts{Name: "ffpod_detached_total",
			Help: "Streams that were ended while their session went on, for the shim to resume it."}),
		orphans: prometheus.NewCounter(prometheus.CounterOpts{Name: "ffpod_orphans_total",
			Help: "Orders to workers to kill a session unless somebody resumes it."}),
		fenced: prometheus.NewCounter(prometheus.CounterOpts{Name: "ffpod_fenced_total",
			Help: "Sessions that were ended because a newer one writes the same outputs."}),
		pauses: prometheus.NewCounter(prometheus.CounterOpts{Name: "ffpod_pauses_total",
			Help: "Sessions that were stopped to make room for one that somebody waits for."}),
		stuck: prometheus.NewGauge(prometheus.GaugeOpts{Name: "ffpod_sessions_stuck",
			Help: "Killed sessions whose process the kernel does not let go."}),
		fallbacks: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ffpod_fallbacks_total",
			Help: "Sessions that got no worker, by kind and verdict: local (their caller was told to run them), timeout, full (of the queue) or reject."}, []string{"kind", "verdict"}),
	}
}

func (m *Metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.queue, m.running, m.sessions, m.waits, m.starts, m.resumes, m.detached, m.orphans, m.fenced, m.pauses, m.stuck, m.fallbacks}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.all() {
		c.Collect(ch)
	}
}

func (m *Metrics) ended(r *run, out outcome) {
	exit := out.word
	if exit == "code" && r.exit.GetCode() == 0 {
		exit = "zero"
	}
	placed, kind := cmp.Or(string(r.decision.Verdict), "none"), cmp.Or(string(r.command.Kind), "unknown")
	m.sessions.WithLabelValues(placed, kind, exit).Inc()
	if verdict := fellBack(out.frame.GetRefused()); verdict != "" {
		m.fallbacks.WithLabelValues(kind, verdict).Inc()
	}
	since := func(h prometheus.Observer, at time.Time) {
		if !at.IsZero() {
			h.Observe(at.Sub(r.asked).Seconds())
		}
	}
	since(m.waits, r.times.leased)
	since(m.starts.WithLabelValues(placed), r.times.running)
}

// fellBack is what a refusal means for a session that wanted a worker. Empty: it may
// still have one, or was none.
func fellBack(r *wire.Refused) string {
	if r == nil {
		return ""
	}
	switch r.GetRefusal() {
	case wire.Refusal_LOCAL:
		return "local"
	case wire.Refusal_QUEUE_TIMEOUT:
		return "timeout"
	case wire.Refusal_QUEUE_FULL:
		return "full"
	case wire.Refusal_DRAINING, wire.Refusal_DUPLICATE, wire.Refusal_BAD_START, wire.Refusal_FENCED:
		return ""
	}
	return "reject"
}
