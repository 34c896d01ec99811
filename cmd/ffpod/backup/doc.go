// Package backup makes and restores backups of a Jellyfin install: its database
// and what else of /config cannot be made again.
//
// A backup is one file, jellyfin-TIME.tar.gz, which tar reads too. Its parts:
//
//	config/...      the tree of /config
//	postgres.dump   pg_dump's custom format, where the database is PostgreSQL
//	manifest.json   every file with its SHA-256, and what was left out and why
//
// The manifest is the last part: a file without it is no backup. A file gets its
// name when it is whole and on the disk.
//
// # SQLite while Jellyfin writes
//
// Every file that begins like an SQLite database is copied with SQLite's own
// online backup, in one read transaction: the copy is the database at one moment,
// with what is still in its write-ahead log. Jellyfin is not stopped and, in
// write-ahead mode, not kept from writing. Locks and the log's index are shared
// memory and record locks of one kernel: the backup must run on Jellyfin's node,
// on the same mount. The connection is read-only, so that closing it never takes
// the log away from under Jellyfin, whatever locks Jellyfin has lost.
//
// # Secrets
//
// The database holds users' password hashes, access tokens and API keys, and no
// restore would be one without them: keep backups as you keep the database. Of
// the settings files, whatever is called a password, a token, a key or a
// connection string is blanked, and private keys are left out; the manifest
// says which. Addresses keep what stands behind their "?".
package backup
