// Package merge compares three versions of a process: what an editor began from, what the editor
// wrote, and what another user saved meanwhile. A field that one side alone changed merges by
// itself; one that both changed to different texts is for the editor to decide. Lines shows two
// texts side by side.
//
// Everything here is pure: no clock, no database. All functions can be called concurrently.
package merge
