// Package doctor examines a cluster before an install of ffpod and after, and says
// of each thing that is wrong what it is, on what, why, and exactly what to do.
//
// A check is a function of the Patient, in a table (checks.go); it changes nothing
// but what it removes again, and what it may not read is `unknown`, never `ok`. The
// only secret it looks at is the database's, of which it tells the names of keys.
package doctor
