package session

import (
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// InfrastructureExit is the shim's exit code when ffpod itself could not do
// what was asked: ffmpeg either never started or its end is unknown. ffmpeg
// exits with 0, 1, 69, 123 or 255, shells use 126 and above.
const InfrastructureExit = 125

// DefaultRing bounds the unacknowledged bytes of one pipe. It is on its way in
// six places between the two ends; when each holds little, each copies little at
// a time, and the whole way gets slower by a fifth with a quarter of this.
const DefaultRing = 1 << 20

const (
	// A stream's window holds the rings of stdout and stderr and as much again
	// for frames and acknowledgements.
	streamWindow = 4 * DefaultRing
	// All streams of a connection at once; grpc-go returns this credit as it
	// reads, not as the application does.
	connWindow = 64 << 20
	// argv and env together are at most 2 MiB on Linux (a quarter of the
	// default stack limit), the envelope is small.
	maxMessage = 8 << 20

	// largeBuffer is where much passes in one call; gRPC takes write buffers from a
	// pool and gives them back when idle. smallBuffer is what each of many
	// connections holds on to.
	largeBuffer = 256 << 10
	smallBuffer = 32 << 10
)

// ServerOptions are for the server on the shim's hop: many connections, one
// session each, which sends much and receives little.
func ServerOptions() []grpc.ServerOption {
	return append(serverOptions(), grpc.ReadBufferSize(smallBuffer), grpc.WriteBufferSize(largeBuffer))
}

// ChannelServerOptions are for the supervisor: few connections, many sessions.
func ChannelServerOptions() []grpc.ServerOption {
	return append(serverOptions(), grpc.ReadBufferSize(largeBuffer), grpc.WriteBufferSize(largeBuffer))
}

// DialOptions are for the shim.
func DialOptions() []grpc.DialOption {
	return append(dialOptions(), grpc.WithReadBufferSize(largeBuffer), grpc.WithWriteBufferSize(smallBuffer))
}

// ChannelDialOptions are for the client at the scheduler's end of a channel.
func ChannelDialOptions() []grpc.DialOption {
	return append(dialOptions(), grpc.WithReadBufferSize(largeBuffer), grpc.WithWriteBufferSize(largeBuffer))
}

func serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec{}),
		grpc.InitialWindowSize(streamWindow),
		grpc.InitialConnWindowSize(connWindow),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(math.MaxUint32),
		// The default of 5 minutes would close quiet connections with
		// too_many_pings.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 2 * time.Second, PermitWithoutStream: true}),
	}
}

func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithInitialWindowSize(streamWindow),
		grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{}), grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithIdleTimeout(0),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableHealthCheck(),
		grpc.WithDisableRetry(), // at most once is decided above, not in the transport
	}
}
