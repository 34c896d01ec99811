// Package gpu proves placement by hardware on a real cluster, the one of
// $KUBECONFIG: real kubelet, real scheduling, real Jobs; only the GPUs are names
// (test/cluster), and the ffmpeg of their workers a stand-in that claims the maker's
// hardware, lies about one encoder, stalls in another, and loses its device when told
// (podexec/prove/testdata/ffmpeg).
//
//	suite ── kubectl exec ──▶ client pod: the shim ──▶ scheduler
//	  │                                                   │ placement
//	  ├─ test/cluster lose, find                          ▼
//	  └─ kubectl rollout, delete      workers: cpu nvidia intel-i915 amd elastic
//
// The specs are ordered: each leaves the workers idle for the next. GPU_KEEP=1 leaves
// the install.
package gpu
