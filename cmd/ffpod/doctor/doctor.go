package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/ffpod/ffpod/scheduler/api"
)

// Level is how bad a finding is.
type Level string

// The levels. Only fail makes the doctor fail.
const (
	OK      Level = "ok"
	Warn    Level = "warn"
	Fail    Level = "fail"
	Unknown Level = "unknown" // it could not be looked at
)

// Finding is one thing that a check found.
type Finding struct {
	Check  string `json:"check"`
	Level  Level  `json:"level"`
	On     string `json:"on,omitempty"`
	What   string `json:"what"`
	Why    string `json:"why,omitempty"`
	Remedy string `json:"remedy,omitempty"`
}

// Patient is a cluster and the ways to look at it.
type Patient struct {
	Client    kubernetes.Interface
	Namespace string
	// Before says that nothing is installed yet.
	Before bool
	// As returns a client that impersonates a ServiceAccount of the namespace.
	As func(account string) (kubernetes.Interface, error)
	// Exec runs a command in a container.
	Exec func(ctx context.Context, pod, container string, args ...string) (Output, error)
	// Watch runs a command and calls line for each line of its stdout as it comes.
	Watch func(ctx context.Context, pod, container string, line func(string), args ...string) error
	// Status asks the scheduler.
	Status func(context.Context) (api.Status, error)
	// Dial connects to a port of a pod.
	Dial func(ctx context.Context, pod string, port int) (net.Conn, error)
	// Prove encodes with an encoder on a worker of a class, through a caller's shim,
	// and returns the scheduler's words for what did it. Nil: it is not tried, for it
	// takes a slot, and may start a Job.
	Prove func(ctx context.Context, class, encoder string) (string, error)
	// Try runs ffmpeg with args in the same way, and says what did it. Nil like Prove.
	Try func(ctx context.Context, class, what string, args []string) (string, error)
	// Dynamic reads the kinds of Traefik and of the Gateway API. Nil: they are not.
	Dynamic dynamic.Interface
	// Now is the clock.
	Now func() time.Time
	// Trial says how RWX is tried before an install.
	Trial Trial

	facts *facts
}

// Output is what a command wrote, and its exit code.
type Output struct {
	Stdout, Stderr string
	Code           int
}

// check is a row of the table.
type check struct {
	name string
	// before and after are when it makes sense.
	before, after bool
	run           func(ctx context.Context, p *Patient) []Finding
}

// Report is everything that was found.
type Report struct {
	Namespace string    `json:"namespace"`
	Before    bool      `json:"before"`
	Time      time.Time `json:"time"`
	Findings  []Finding `json:"findings"`
}

// bound is the most that one check may take; a proof may wait for a Job of each class.
const bound = 10 * time.Minute

// Examine runs every check that makes sense, in order. only names those to run;
// empty: all.
func Examine(ctx context.Context, p *Patient, only []string, progress func(check string)) (Report, error) {
	if p.Now == nil {
		p.Now = time.Now
	}
	table := checks()
	for _, name := range only {
		if !known(table, name) {
			return Report{}, fmt.Errorf("there is no check %q; known are %s", name, strings.Join(Names(), ", "))
		}
	}
	r := Report{Namespace: p.Namespace, Before: p.Before, Time: p.Now()}
	p.facts = gather(ctx, p)
	r.add("read", p.facts.problems)
	for _, c := range table {
		if p.Before && !c.before || !p.Before && !c.after || len(only) > 0 && !contains(only, c.name) {
			continue
		}
		if progress != nil {
			progress(c.name)
		}
		within, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("not within %s", bound))
		r.add(c.name, c.run(within, p))
		cancel()
		if ctx.Err() != nil {
			return r, context.Cause(ctx)
		}
	}
	return r, nil
}

func (r *Report) add(check string, found []Finding) {
	for _, f := range found {
		f.Check = cmp.Or(f.Check, check)
		f.What, f.Why, f.Remedy = oneLine(f.What), oneLine(f.Why), oneLine(f.Remedy)
		r.Findings = append(r.Findings, f)
	}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// Count returns the number of findings of a level.
func (r Report) Count(l Level) int {
	n := 0
	for _, f := range r.Findings {
		if f.Level == l {
			n++
		}
	}
	return n
}

// JSON writes the report for a program.
func (r Report) JSON(w io.Writer) error {
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	return out.Encode(r)
}

// Text writes the report for a person: what is wrong with its remedy, what is right
// only when asked for.
func (r Report) Text(w io.Writer, verbose bool) error {
	var b strings.Builder
	marks := map[Level]string{OK: "ok  ", Warn: "WARN", Fail: "FAIL", Unknown: "?   "}
	for _, f := range r.Findings {
		if f.Level == OK && !verbose {
			continue
		}
		fmt.Fprintf(&b, "%s %s: ", marks[f.Level], f.Check)
		if f.On != "" {
			fmt.Fprintf(&b, "%s: ", f.On)
		}
		b.WriteString(f.What)
		if f.Why != "" {
			b.WriteString(": " + f.Why)
		}
		b.WriteByte('\n')
		if f.Remedy != "" {
			fmt.Fprintf(&b, "       → %s\n", f.Remedy)
		}
	}
	fmt.Fprintf(&b, "%d failed, %d to look at, %d could not be checked, %d ok\n", r.Count(Fail), r.Count(Warn), r.Count(Unknown), r.Count(OK))
	_, err := io.WriteString(w, b.String())
	return err
}

// Names are those of all checks.
func Names() []string {
	var names []string
	for _, c := range checks() {
		names = append(names, c.name)
	}
	return names
}

func known(table []check, name string) bool {
	for _, c := range table {
		if c.name == name {
			return true
		}
	}
	return false
}

func contains(all []string, one string) bool {
	for _, s := range all {
		if s == one {
			return true
		}
	}
	return false
}

func ok(on, format string, args ...any) Finding {
	return Finding{Level: OK, On: on, What: fmt.Sprintf(format, args...)}
}

func unknown(on, what string, err error) Finding {
	return Finding{Level: Unknown, On: on, What: what, Why: err.Error()}
}
