// Package class reads classes: a class is an ordinary apps/v1 Deployment with
// the label ffpod.dev/class, whose pod has a container named worker.
//
// Its replicas are the warm workers, its pod template is also what Jobs are
// made from. Annotations on the Deployment, all optional, say the rest:
//
//	ffpod.dev/slots       sessions at a time per warm worker       default 2
//	                      (on the pod template too, where the
//	                      downward API can read it; that one wins)
//	ffpod.dev/jobs        most Jobs at a time, 0 = none            default 4
//	ffpod.dev/standby     N or MIN..MAX Jobs made ahead of need:   default 0
//	                      between the two by recent demand
//	ffpod.dev/kinds       comma list of kinds of session           default all
//	ffpod.dev/cost        placement prefers the cheaper class      default 0
//	ffpod.dev/devices     comma list of devices that its limits    default none
//	                      do not name: those of a ResourceClaim
//	ffpod.dev/egress      true: its pods may reach network inputs  default false
//	ffpod.dev/scale       MIN..MAX replicas that the scheduler     default: it never
//	                      may choose between                       touches replicas
//	ffpod.dev/translate   true: sessions for hardware that it      default false
//	                      has not may run there, rewritten
//	ffpod.dev/queue-name  Kueue's LocalQueue for its Jobs          default none
//
// What is unknown or malformed counts as absent and is reported as an Event on
// the Deployment, once per generation of it. A Deployment whose pods could not
// serve (no container worker, another command, labels that do not agree) is
// not a class at all until it is repaired; the Event says why.
package class
