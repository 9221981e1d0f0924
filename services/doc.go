// Package services holds what gatehouse exists for: edit locks, the session cache and rate
// limits, and the work of the application built on them. All types are safe for concurrent use.
package services
