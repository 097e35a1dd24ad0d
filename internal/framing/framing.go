// Package framing finds requests whose end two servers may see in different places. If a proxy sees another end than
// the server behind it, a client can slip a request past the proxy (request smuggling: RFC 9112, section 11.2).
package framing

import "bytes"

var (
	contentLength    = []byte("Content-Length")
	transferEncoding = []byte("Transfer-Encoding")
	chunked          = []byte("chunked")
)

// Ambiguous reports whether headers, as they came over the wire, leave open where the request ends: a length beside an
// encoding, another encoding than chunked, a line that ends without CR or goes on in the next one, or a space in the
// name of either. fasthttp takes these, and refuses by itself two lengths, lengths and chunk sizes that are not plain
// numbers, two encodings, two hosts, and a space before a colon.
func Ambiguous(headers []byte) bool {
	var length, encoding bool
	for len(headers) > 0 {
		line, rest, _ := bytes.Cut(headers, []byte("\n"))
		headers = rest

		end := len(line) - 1
		if end < 0 || line[end] != '\r' {
			return true
		}
		if end == 0 {
			break
		}
		switch line[0] {
		case ' ', '\t':
			return true
		case 'C', 'c', 'T', 't':
		default:
			continue // neither header begins so, as most do not
		}
		name, value, _ := bytes.Cut(line[:end], []byte(":"))
		if bytes.IndexByte(name, ' ') >= 0 {
			return true
		}

		switch len(name) {
		case len(contentLength):
			length = length || bytes.EqualFold(name, contentLength)
		case len(transferEncoding):
			if bytes.EqualFold(name, transferEncoding) {
				encoding = true
				if !bytes.EqualFold(bytes.Trim(value, " \t"), chunked) {
					return true
				}
			}
		}
	}
	return length && encoding
}
