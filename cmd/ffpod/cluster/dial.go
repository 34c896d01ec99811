package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/ffpod/ffpod/scheduler/api"
)

// Dial opens one connection to a port of a pod, as kubectl port-forward does but
// without a local port that others could use. A port on the pod's loopback address
// is reached too.
func (c *Cluster) Dial(ctx context.Context, pod string, port int) (*Conn, error) {
	url := c.Client.CoreV1().RESTClient().Post().Resource("pods").Namespace(c.Namespace).Name(pod).SubResource("portforward").URL()
	transport, upgrader, err := spdy.RoundTripperFor(c.Config)
	if err != nil {
		return nil, fmt.Errorf("forward to pod %s: %w", pod, err)
	}
	websocket, err := portforward.NewSPDYOverWebsocketDialerForStreaming(url, c.Config)
	if err != nil {
		return nil, fmt.Errorf("forward to pod %s: %w", pod, err)
	}
	dialer := portforward.NewFallbackDialerForStreaming(websocket,
		spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, url), upgradeFailed)
	type dialed struct {
		conn httpstream.Connection
		err  error
	}
	done := make(chan dialed, 1) // the dialer knows no context
	go func() {
		conn, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
		done <- dialed{conn, err}
	}()
	select {
	case <-ctx.Done():
		go func() {
			if d := <-done; d.err == nil {
				d.conn.Close()
			}
		}()
		return nil, fmt.Errorf("forward to pod %s: %w", pod, context.Cause(ctx))
	case d := <-done:
		if apierrors.IsForbidden(d.err) || d.err != nil && strings.Contains(d.err.Error(), "forbidden") {
			return nil, fmt.Errorf("forward to pod %s: %w; it needs pods/portforward (get and create), which the roles admin and edit hold", pod, d.err)
		}
		if d.err != nil {
			return nil, fmt.Errorf("forward to pod %s: %w", pod, d.err)
		}
		return open(d.conn, pod, port)
	}
}

// Conn is a forwarded connection. It owns two goroutines, which Close awaits.
type Conn struct {
	net.Conn // our end of a pipe, which has deadlines
	far      httpstream.Connection
	copying  sync.WaitGroup

	said  chan struct{} // closed when the node will say no more of faults
	fault error         // set before
}

func open(far httpstream.Connection, pod string, port int) (*Conn, error) {
	headers := http.Header{}
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	headers.Set(corev1.PortHeader, strconv.Itoa(port))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	faults, err := far.CreateStream(headers)
	if err != nil {
		far.Close()
		return nil, fmt.Errorf("forward to port %d of pod %s: %w", port, pod, err)
	}
	faults.Close() // we write nothing
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := far.CreateStream(headers)
	if err != nil {
		far.Close()
		return nil, fmt.Errorf("forward to port %d of pod %s: %w", port, pod, err)
	}
	ours, theirs := net.Pipe()
	c := &Conn{Conn: ours, far: far, said: make(chan struct{})}
	c.copying.Go(func() {
		defer close(c.said)
		if b, _ := io.ReadAll(faults); len(b) > 0 {
			c.fault = fmt.Errorf("forward to port %d of pod %s: %s", port, pod, strings.TrimSpace(string(b)))
			far.Close()
		}
	})
	c.copying.Go(func() {
		_, _ = io.Copy(data, theirs) // its end is seen by the other direction
		data.Close()
	})
	c.copying.Go(func() {
		_, _ = io.Copy(theirs, data)
		theirs.Close()
	})
	return c, nil
}

// Fault is what the pod's node said was wrong, if anything: call it when the
// connection ended too early, before Close. The words may come a moment after that.
func (c *Conn) Fault() error {
	select {
	case <-c.said:
		return c.fault
	case <-time.After(time.Second):
		return nil
	}
}

// Close ends the connection.
func (c *Conn) Close() error {
	err := errors.Join(c.Conn.Close(), c.far.Close())
	c.copying.Wait()
	return err
}

// Status asks the install's scheduler how it is.
func (c *Cluster) Status(ctx context.Context) (s api.Status, err error) {
	return s, c.operate(ctx, http.MethodGet, api.Path, &s)
}

// Prove has the workers of a class, or all of them, try their hardware again.
func (c *Cluster) Prove(ctx context.Context, class string) (all []api.Proof, err error) {
	return all, c.operate(ctx, http.MethodPost, api.ProvePath+"?"+url.Values{"class": {class}}.Encode(), &all)
}

// operate makes a request of the scheduler's port for operators.
func (c *Cluster) operate(ctx context.Context, method, path string, answer any) error {
	pod, err := c.Scheduler(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 15*time.Second, errors.New("no answer within 15 s"))
	defer cancel()
	conn, err := c.Dial(ctx, pod.Name, api.Port)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := ask(ctx, conn.Conn, method, path, answer); err != nil { // whose Close leaves the node time for its words
		if fault := conn.Fault(); fault != nil {
			err = fault
		}
		return fmt.Errorf("ask scheduler %s/%s: %w; it must be of this release, and listen.operators not be changed", c.Namespace, pod.Name, err)
	}
	return nil
}

// ask makes the one request that a connection is for.
func ask(ctx context.Context, conn net.Conn, method, path string, answer any) error {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", res.Status, strings.TrimSpace(string(b)))
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return fmt.Errorf("its answer: %w", err)
	}
	return nil
}
