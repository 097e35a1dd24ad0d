package framing_test

import (
	"testing"

	"stampede/internal/framing"
)

func TestAmbiguous(t *testing.T) {
	t.Parallel()
	for headers, want := range map[string]bool{
		"":                                     false,
		"Host: x\r\nContent-Length: 5\r\n\r\n": false,
		"Host: x\r\nTransfer-Encoding: chunked\r\n\r\n":                          false,
		"host:x\r\ntransfer-encoding:\tCHUNKED \r\n\r\n":                         false,
		"Host: x\r\nContent-Lengths: 5\r\nTransfer-Encoding: chunked\r\n\r\n":    false,
		"Content-Length: 5\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n":     true,
		"Transfer-Encoding: chunked\r\nHost: x\r\ncontent-length: 5\r\n\r\n":     true,
		"Host: x\r\nTransfer-Encoding: identity\r\n\r\n":                         true,
		"Host: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n":                 true,
		"Host: x\r\nTransfer-Encoding:\r\n\r\n":                                  true,
		"Host: x\nAccept: y\r\n\r\n":                                             true,
		"Host: x\r\nAccept: y\n\n":                                               true,
		"Host: x\r\n\n":                                                          true,
		"Host: x\r\nAccept: y\r\n z\r\n\r\n":                                     true,
		"Host: x\r\nAccept: y\r\n\tz\r\n\r\n":                                    true,
		"Host: x\r\nContent Length: 5\r\n\r\n":                                   true,
		"Host: x\r\nContent-Length : 5\r\n\r\n":                                  true,
		"Host: x\r\nContent-Length: 5\r\n\r\nTransfer-Encoding: chunked\r\n\r\n": false,
	} {
		if got := framing.Ambiguous([]byte(headers)); got != want {
			t.Errorf("%q: got %v", headers, got)
		}
	}
}
