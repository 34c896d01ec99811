// Package data proves as pods what keeps a person's data: the overlays
// production-sqlite and production-postgres with their databases, backups and
// restores; and an install begun small: on a real cluster, by the commands of docs/.
//
//	production overlay, copied and edited as its comment says
//	   └▶ Jellyfin (simulated) ── plays on a worker
//	        rows and settings ── docs/backup.md: back up, lose all, restore ──▶ the same
//
// What is applied is what a user applies, but for what the local cluster lacks:
//
//   - the NVIDIA and Intel classes are taken out of the list, with the runtime class:
//     there is no GPU, and hardwareAcceleration is none. The class of CPUs works;
//   - cert-manager is taken out: its controller is not there. The Ingress is applied,
//     and no controller serves it;
//   - the library is a claim of the namespace, not on NFS, and the storage class is
//     the cluster's;
//   - the images are the simulated server's (test/jellyfin/image) and Debian's
//     PostgreSQL (test/data/postgres), whose release is older: initdb has no built-in
//     locale provider there, so INITDB_OPTIONS asks for the C library's C.UTF-8.
//
// Pod Security `restricted` is enforced. NetworkPolicies are applied, and nothing
// enforces them: the cluster's network has no such part. The simulated server does
// not use its database: rows are written into it beside the server, in its pod or in
// the database's.
package data
