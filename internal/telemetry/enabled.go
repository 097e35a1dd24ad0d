//go:build !uninstrumented

package telemetry

// Enabled is false in builds with the tag uninstrumented, which exist to measure what telemetry costs.
const Enabled = true
