//go:build release

package main

// workshop is empty: see dev.go.
type workshop struct{}
