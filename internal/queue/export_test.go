package queue

// The tests are outside the package, since the local stack that they use imports it.

const (
	MaxRefusals    = maxRefusals
	MaxReasonBytes = maxReasonBytes
)
