// Package registry keeps the writers of one pod off each other's outputs: those
// that run here and those that a shim of this pod has on a worker. Sessions of
// several pods are the scheduler's to fence.
//
// It is a directory of small files in the pod's shared memory and flock(2): the
// kernel lets go of a lock when its last holder dies, whatever it died of, and
// that is what a writer has to know of another.
//
//	/dev/shm/ffpod-UID/
//	   k-HASH      one per output key
//	               shared lock: by each shim with a session on a worker, for its life
//	               exclusive:   by a writer that runs here, for its own: the descriptor
//	                            survives execve, so ffmpeg itself holds it
//	               content:     the sessions, or the pid
//	   s-SESSION   one per session on a worker; locked by its shim
//	               content:     worker and bound; the time of writing is renewed
//	   born        how old the registry is
//
// Sessions share a key because the scheduler fences them against each other: a
// newer one must be able to ask it while the older one's shim is still there. A
// session's file is removed when its end is known. One that is left without a
// lock tells that its shim was killed: ffmpeg may live on, until the scheduler
// says that it does not (Clear) or its bound has passed, counted from the last
// renewal: the worker ends by itself what nobody is attached to.
//
//	newcomer   finds                              does
//	local      nobody                             runs
//	local      a writer here                      waits up to Wait, then BusyError
//	local      a shim that lives                  waits 0.2 s for its death, then has the scheduler kill the session
//	local      a session of a dead shim           asks the scheduler; unreachable: waits for the bound, and says so
//	local      a registry younger than a bound    asks the scheduler: a former pod may have left something; unreachable: runs
//	remote     a writer here                      waits up to Wait, then BusyError
//	remote     sessions                           goes to the scheduler, which fences them
//
// # What it is not
//
// It must not keep anybody from working: a registry that cannot be used (no
// memory, no rights, somebody else's directory) is an error that the caller logs
// and passes over. Keys are compared for equality; only the scheduler knows of
// sets of files that overlap. Among writers of this pod there is no order: who
// gets the lock first runs, and the others wait for it.
//
// # A descriptor more
//
// A program that runs here inherits one descriptor for each of its outputs, from
// number 200 on. ffmpeg never looks at it. A child that outlives ffmpeg and has
// inherited it holds the lock too: it could still write.
package registry
