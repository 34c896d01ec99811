// Package podexec is os/exec for a pod: Cmd runs a program on a worker and reads
// like exec.Cmd, Channel is the one long-lived pods/exec stream that carries all
// sessions of a worker. It knows client-go and the session protocol; it knows
// nothing of the scheduler.
//
//	Cmd ─▶ gRPC client ─▶ net.Pipe ─▶ WebSocket ─▶ API server ─▶ kubelet ─▶ container
//	                                                                         │ worker dial
//	                                                          supervisor ◀── unix socket
//
// # Why a channel and not an exec per command
//
// A raw exec stream reports success when a hop dies, loses output when stdin is
// under pressure, dies when a reader stalls for a minute, lets a full stdout block
// stderr and stdin, has no signals and no working directory, and leaves its process
// running when the client goes. It costs a runc exec (about 50 ms) each time. A
// channel is exec'd once; what travels in it is HTTP/2, whose own frames say what
// happened. The end of a channel says nothing about the sessions in it.
//
// # Outcomes
//
// A command ends in one of four ways: nil (it ran and exited with 0), *ExitError (it
// ran and ended otherwise), *StartError (it never ran: it may be run elsewhere),
// *LostError (it may have begun and its end is unknown: never run it again
// silently). When several are true the first of this list is reported: the child's
// exit, then the reason it never started, then the loss.
package podexec
