// Package models holds the plain types, sentinel errors and problems of gatehouse. It imports the
// standard library only, so any package or application can use it. It knows nothing of Redis,
// and its values are safe to share between goroutines as long as none changes them.
package models
