package stacktest

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// framing is a request whose end, or whose head, two servers may see in different places.
type framing struct {
	name    string
	version string // after the path; empty means HTTP/1.1
	headers string // lines after the first one; a Host is added unless noHost is set
	body    string
	// refused says that nothing but one answer with 4xx and a closed connection is right. Otherwise it is one request,
	// and what follows is the next.
	refused bool
	noHost  bool
	closes  bool // one request, after which the connection ends
}

// smuggled is what an attacker would have taken for a request of its own.
const smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"

// framings are what RFC 9112 warns of, and what smuggled requests past real proxies.
var framings = func() []framing {
	n := strconv.Itoa(len(smuggled))
	length := "Content-Length: " + n + "\r\n"
	const chunked = "Transfer-Encoding: chunked\r\n"
	inChunk := func(size, after string) string { return size + "\r\n" + smuggled + "\r\n" + after }
	size := strconv.FormatInt(int64(len(smuggled)), 16)
	refused := func(name, headers, body string) framing {
		return framing{name: name, headers: headers, body: body, refused: true}
	}
	one := func(name, headers, body string) framing { return framing{name: name, headers: headers, body: body} }
	return []framing{
		one("a length", length, smuggled),
		one("a length with zeros before it", "Content-Length: 00"+n+"\r\n", smuggled),
		one("a chunk", chunked, inChunk(size, "0\r\n\r\n")),
		one("a length under another name", "Content_Length: 5\r\n"+length, smuggled),

		refused("length, then chunked", length+chunked, "0\r\n\r\n"+smuggled),
		refused("chunked, then length", chunked+"Content-Length: 5\r\n", inChunk(size, "0\r\n\r\n")),
		refused("length 0 and chunked", "Content-Length: 0\r\n"+chunked, inChunk(size, "0\r\n\r\n")),
		refused("length and identity", length+"Transfer-Encoding: identity\r\n", smuggled),
		refused("two lengths", "Content-Length: 0\r\n"+length, smuggled),
		refused("the same length twice", length+length, smuggled),
		refused("length with a sign", "Content-Length: +"+n+"\r\n", smuggled),
		refused("negative length", "Content-Length: -1\r\n", smuggled),
		refused("length with a space", "Content-Length: "+n[:1]+" "+n[1:]+"\r\n", smuggled),
		refused("hexadecimal length", "Content-Length: 0x"+size+"\r\n", smuggled),
		refused("list of lengths", "Content-Length: "+n+", "+n+"\r\n", smuggled),
		refused("length of nothing", "Content-Length:\r\n", smuggled),
		refused("length of 2^64", "Content-Length: 18446744073709551616\r\n", smuggled),
		refused("length in a folded line", "Content-Length:\r\n "+n+"\r\n", smuggled),

		refused("folded line", "X-A: b\r\n c\r\n", smuggled),
		refused("folded encoding", "Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"+smuggled),
		refused("space before the colon", "Content-Length : "+n+"\r\n", smuggled),
		refused("tab before the colon", "Content-Length\t: "+n+"\r\n", smuggled),
		refused("space in a name", "Content Length: "+n+"\r\n", smuggled),
		refused("space before the first name", " X-A: b\r\n", smuggled),
		refused("line without a colon", "X-A\r\n", smuggled),
		refused("line without a name", ": b\r\n", smuggled),
		refused("bare LF", "X-A: b\n"+length, smuggled),
		refused("bare LF at the end", "X-A: b\n\n"+smuggled, ""),
		refused("bare CR", "X-A: b\r"+length, smuggled),
		refused("NUL in a value", "X-A: b\x00c\r\n", smuggled),
		refused("NUL in a name", "Content-Length\x00: "+n+"\r\n", smuggled),

		refused("encoded twice, in a list", "Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"+smuggled),
		refused("encoded twice, in two lines", chunked+chunked, "0\r\n\r\n"+smuggled),
		refused("xchunked", "Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"+smuggled),
		refused("chunked in quotes", "Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"+smuggled),
		refused("chunked after a vertical tab", "Transfer-Encoding: \vchunked\r\n", "0\r\n\r\n"+smuggled),
		refused("identity", "Transfer-Encoding: identity\r\n", smuggled),
		refused("gzip, then chunked", "Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"+smuggled),
		refused("chunked, then identity", "Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"+smuggled),
		refused("no encoding", "Transfer-Encoding:\r\n", smuggled),
		one("CHUNKED", "tRANSFER-eNCODING:\tCHUNKED \r\n", inChunk(size, "0\r\n\r\n")),

		refused("chunk size with a sign", chunked, inChunk("+"+size, "0\r\n\r\n")),
		refused("negative chunk size", chunked, "-1\r\n\r\n"+smuggled),
		refused("chunk size as 0x", chunked, inChunk("0x"+size, "0\r\n\r\n")),
		refused("chunk size of 2^64", chunked, inChunk("10000000000000000", "0\r\n\r\n")),
		refused("chunk size of nothing", chunked, inChunk("", "0\r\n\r\n")),
		refused("chunk size that is too small", chunked, inChunk("3", "0\r\n\r\n")),
		refused("chunk that ends with LF", chunked, "1\r\na\n0\r\n\r\n"+smuggled),
		refused("chunk size that ends with LF", chunked, "1\na\r\n0\r\n\r\n"+smuggled),
		refused("last chunk that ends with LF", chunked, "0\n\n"+smuggled),
		refused("length in a trailer", chunked, "0\r\n"+length+"\r\n"+smuggled),
		one("chunk with an extension", chunked, inChunk(size+";a=b", "0\r\n\r\n")),

		{name: "encoded in HTTP/1.0", version: "HTTP/1.0", headers: chunked, body: "0\r\n\r\n" + smuggled,
			refused: true},
		{name: "length in HTTP/1.0", version: "HTTP/1.0", headers: length, body: smuggled, closes: true},
		{name: "HTTP/1.10", version: "HTTP/1.10", headers: length, body: smuggled, refused: true},
		{name: "no host", headers: length, body: smuggled, noHost: true, refused: true},
		refused("two hosts", "Host: y\r\n"+length, smuggled),
	}
}()

// Continues wants a client that waits for 100 Continue before it sends its body to get it, however it writes the word;
// and none of HTTP/1.0, which knows no such answers. The line and the headers are those of a request whose body is
// taken.
func Continues(t *testing.T, addr, line, headers, body string) {
	t.Helper()
	for _, expect := range []string{"100-continue", "100-Continue", "100-CONTINUE"} {
		conn, reader := dial(t, addr)
		write := func(text string) {
			if _, err := io.WriteString(conn, text); err != nil {
				t.Fatal(err)
			}
		}
		write(fmt.Sprintf("%s HTTP/1.1\r\nHost: x\r\nExpect: %s\r\nConnection: close\r\nContent-Length: %d\r\n%s\r\n",
			line, expect, len(body), headers))
		if got, err := reader.ReadString('\n'); err != nil || got != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("Expect: %s: got %q, %v before the body", expect, got, err)
		}
		if got, err := reader.ReadString('\n'); err != nil || got != "\r\n" {
			t.Fatalf("Expect: %s: 100 goes on with %q, %v", expect, got, err)
		}
		write(body)
		wantSuccess(t, "Expect: "+expect, reader)
	}

	conn, reader := dial(t, addr)
	if _, err := fmt.Fprintf(conn, "%s HTTP/1.0\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n%s\r\n%s",
		line, len(body), headers, body); err != nil {
		t.Fatal(err)
	}
	wantSuccess(t, "HTTP/1.0", reader)
}

// wantSuccess wants one answer, with 2xx, and no more.
func wantSuccess(t *testing.T, what string, from io.Reader) {
	t.Helper()
	var got []answer
	if err := readAnswers(from, func(a answer) { got = append(got, a) }); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if len(got) != 1 || got[0].status < 200 || got[0].status > 299 {
		t.Errorf("%s: answered %v, want one answer with 2xx", what, got)
	}
}

// dial opens a connection for the time of the test.
func dial(t *testing.T, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	return conn, bufio.NewReader(conn)
}

// AmbiguousFramings sends requests whose end is ambiguous, and wants each to be refused or to be one request: never
// two, nor an answer to what was smuggled. The line is the first of a request, without its version, that is answered
// without a look at its body, and the headers are its own; next is a request that is answered with 200.
func AmbiguousFramings(t *testing.T, addr, line, headers, next string) {
	t.Helper()
	for _, f := range framings {
		t.Run(f.name, func(t *testing.T) {
			got, err := converse(addr, f.raw(line, headers)+next)
			if err != nil {
				t.Fatalf("after %v: %v", got, err)
			}
			if !f.right(got) {
				t.Errorf("answered %v", got)
			}
		})
	}
	method, path, _ := strings.Cut(line, " ")
	t.Run("an absolute address", func(t *testing.T) {
		got, err := converse(addr, framings[0].raw(method+" http://elsewhere"+path, headers)+next)
		if err != nil || !framings[0].right(got) {
			t.Errorf("answered %v, %v", got, err)
		}
	})
}

// right reports whether these are the answers that should come.
func (f framing) right(got []answer) bool {
	switch {
	case f.refused:
		return len(got) == 1 && got[0].refused()
	case f.closes:
		return len(got) == 1 && !got[0].refused()
	default:
		return len(got) == 2 && !got[0].refused() && got[1].status == http.StatusOK
	}
}

// raw is the whole request. Its own headers come first, so that a line that would be the first one is it.
func (f framing) raw(line, headers string) string {
	host := "Host: x\r\n"
	if f.noHost {
		host = ""
	}
	return line + " " + cmp.Or(f.version, "HTTP/1.1") + "\r\n" + f.headers + host + headers + "\r\n" + f.body
}

// answer is what a server said.
type answer struct {
	status int
	body   string
}

// refused reports whether it is the answer, of edge and local SQS alike, to what is not well-formed HTTP.
func (a answer) refused() bool {
	return a.status == http.StatusBadRequest && strings.Contains(a.body, "The request cannot be read.")
}

// converse sends something and returns all answers until the server closes the connection.
func converse(addr, text string) ([]answer, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		return nil, err
	}
	var all []answer
	err = readAnswers(conn, func(a answer) { all = append(all, a) })
	return all, err
}

// readAnswers reads answers until there are no more.
func readAnswers(from io.Reader, each func(answer)) error {
	reader := bufio.NewReader(from)
	for {
		if _, err := reader.Peek(1); err == io.EOF {
			return nil
		}
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil {
			return err
		}
		each(answer{response.StatusCode, string(body)})
	}
}

// FramingsThroughProxy sends the requests of AmbiguousFramings to a proxy in front of a server, which start starts and
// which may write them anew. However many requests the proxy sees in one, the server must see no more.
func FramingsThroughProxy(t *testing.T, addr, line, headers, next string, start func(behind string) string) {
	t.Helper()
	behind := newTap(t, addr)
	front := start(behind.ln.Addr().String())
	told := 0 // answers that clients got, so many as the proxy saw requests
	for _, f := range framings {
		t.Run(f.name, func(t *testing.T) {
			got, err := converse(front, f.raw(line, headers)+next)
			if err != nil {
				t.Fatalf("after %v: %v", got, err)
			}

			// What were left over on the connection to the server would be answered now.
			after, err := converse(front, next)
			if err != nil || len(after) != 1 || after[0].status != http.StatusOK {
				t.Fatalf("afterwards an ordinary request is answered with %v, %v", after, err)
			}

			told += len(got) + len(after)
			if n := behind.answers(); n > told {
				t.Errorf("the server has given %d answers, and clients got %d, of this request %v", n, told, got)
			}
			for _, a := range got {
				if a.status == http.StatusBadGateway {
					t.Errorf("what the client did wrong is taken for the server's fault: %v", got)
				}
			}
		})
	}
}
