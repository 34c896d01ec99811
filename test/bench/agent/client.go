package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Client asks an agent that runs elsewhere. It is for one goroutine.
type Client struct {
	requests *json.Encoder
	results  *json.Decoder
	in       io.WriteCloser
	out      io.Closer
}

// NewClient speaks over the agent's stdin and stdout.
func NewClient(stdin io.WriteCloser, stdout io.ReadCloser) *Client {
	return &Client{requests: json.NewEncoder(stdin), results: json.NewDecoder(stdout), in: stdin, out: stdout}
}

// Do answers one request. A command that did not exit with 0 is an error, but
// for one that was killed on request. After ctx is done the client is closed.
func (c *Client) Do(ctx context.Context, r Request) (Result, error) {
	stop := context.AfterFunc(ctx, c.Close)
	defer stop()
	var result Result
	err := c.requests.Encode(r)
	if err == nil {
		err = c.results.Decode(&result)
	}
	what := strings.Join(r.Argv[:min(len(r.Argv), 3)], " ")
	switch {
	case ctx.Err() != nil:
		return result, ctx.Err()
	case err != nil:
		return result, fmt.Errorf("agent in the client pod: %s %s: %w", r.Op, what, err)
	case result.Err != "":
		return result, fmt.Errorf("client pod: %s %s: %s", r.Op, what, result.Err)
	case result.Code != 0 && r.Op == Run:
		return result, fmt.Errorf("client pod: %s: exit %d: %s", what, result.Code, result.Stderr)
	}
	return result, nil
}

// Close ends the agent.
func (c *Client) Close() {
	_ = c.in.Close()
	_ = c.out.Close()
}
