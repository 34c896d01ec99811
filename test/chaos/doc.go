// Command chaos breaks a running ffpod, on purpose and again and again, and judges
// every session by what its caller saw: byte-exact with the right exit, or a
// failure that is told in time. Anything else is a defect and fails the run.
//
//	go run ./test/cluster up --nodes 2
//	go run ./test/chaos -seed 1 -faults 500 -o out/chaos.json
//
// It needs root and the cluster of test/cluster with two nodes, for it works from
// outside that cluster, on the machine itself, where no fault can reach it:
//
//	chaos ── spawns the shim in the client pod's namespaces, holds its pipes
//	  │ ── knows every byte to come, compares as it comes, times the gaps
//	  │ ── breaks: sockets (ss -K), packets (nft), processes (kill), parts
//	  │            (test/cluster kill|start), pods and Jobs (API)
//	  └─ sees in the machine's /proc whose ffmpeg still lives, in which pod
//
//	node1: client pod, scheduler          node2: workers, whose ffmpeg is
//	                                      test/chaos/fake, or a real one
//
// # A run
//
// A run is a list of scenes: a pure function of the seed (-plan prints it). A
// scene is one fault and the sessions that are at chosen moments of their lives
// when it strikes. Scenes whose fault concerns one session run side by side, the
// others alone. After each scene the processes left are counted, and the install
// must serve every class again before the next begins.
//
// # Verdicts
//
//	exact    every byte, and the exit that the program gave
//	failed   not 0, within the bound, no wrong byte: told honestly
//	killed   the fault was to kill the caller's shim
//	lie      success or the right exit with bytes missing; a wrong byte ever
//	hang     no end within the bound
//
// Beside them: orphans (a session's process that outlives its bound), overlaps
// (two writers of one output at a time), and failures of sessions that ran when a
// fault struck that must be survived. Each of lie, hang, orphan, overlap and such
// a failure makes the exit status 1.
package main
