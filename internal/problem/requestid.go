package problem

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
)

// RequestIDHeader names a request in its answer.
const RequestIDHeader = "Stampede-Request-Id"

// traceIDBytes is the length of a trace id, and so of a request's: 32 hexadecimal digits.
const traceIDBytes = 16

// RequestID is an id as it is written.
type RequestID [2 * traceIDBytes]byte

// NewRequestID is the trace id of the traceparent that the client sent, or a random one.
func NewRequestID(traceparent []byte) (id RequestID) {
	if sent := traceID(traceparent); sent != nil {
		copy(id[:], sent)
		return id
	}
	// These numbers are random enough to be unique, and cost a few nanoseconds.
	var raw [traceIDBytes]byte
	binary.NativeEndian.PutUint64(raw[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(raw[8:], rand.Uint64())
	hex.Encode(id[:], raw[:])
	return id
}

// traceID returns the trace id of a traceparent header (W3C Trace Context), or nil if that is not valid. Later versions
// of the header may go on after what the first one has.
func traceID(traceparent []byte) []byte {
	const length = len("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	switch {
	case len(traceparent) < length, string(traceparent[:2]) == "ff":
		return nil
	case len(traceparent) > length && (string(traceparent[:2]) == "00" || traceparent[length] != '-'):
		return nil
	}
	trace, parent := traceparent[3:35], traceparent[36:52]
	if traceparent[2] != '-' || traceparent[35] != '-' || traceparent[52] != '-' ||
		!isHex(traceparent[:2]) || !isHex(trace) || !isHex(parent) || !isHex(traceparent[53:length]) ||
		isZero(trace) || isZero(parent) {
		return nil
	}
	return trace
}

// isHex reports whether all digits are hexadecimal, with small letters.
func isHex(digits []byte) bool {
	for _, d := range digits {
		if (d < '0' || d > '9') && (d < 'a' || d > 'f') {
			return false
		}
	}
	return true
}

func isZero(digits []byte) bool {
	for _, d := range digits {
		if d != '0' {
			return false
		}
	}
	return true
}
