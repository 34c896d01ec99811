// Package server is the scheduler's door: gRPC over TLS 1.3 for shims, health and
// metrics in the clear, the certificate that shims verify, and the
// authentication of every session.
//
//	shim ── TLS (server name ffpod-scheduler, CA from ConfigMap ffpod-client)
//	     ── bearer token (projected, audience ffpod)
//	          │ Authenticator: TokenReview, or the API server's published keys
//	          ▼
//	     Caller{namespace, ServiceAccount, pod, uid} ──▶ scheduler.Serve
//
// # Certificates
//
// Whoever holds a CA that callers trust can take their sessions, so the CA never
// leaves its Secret, and a new one is known to callers long before it signs:
//
//	 CA 1 ────────────────────────────────────┐
//	      CA 2 published ◀── tls.publish ──▶  CA 2 signs
//	ca.crt: [1]   [1 2]                       [1 2]              [2]
//
// Secret and ConfigMap are updated with their resourceVersion: replicas that
// disagree lose, read again, and agree. The decision what to renew is a pure
// function of time and of what the Secret holds (rotation.go).
//
// # Authentication
//
// A caller is a pod: tokens that are bound to none are refused. Every refusal
// says what was wrong and what to do, in one line, as the stream's status. With
// TokenReview the API server is the judge. Where RBAC does not grant it, the
// token is verified against the keys that the API server publishes, and the pod
// it names must exist with that UID and ServiceAccount.
package server
