package e2e

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"stampede/localstack/stacktest"
)

// chromiumNames are what Chromium is called in various systems. Any browser of its kind will do.
var chromiumNames = []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome",
	"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
	"/Applications/Chromium.app/Contents/MacOS/Chromium"}

// chromium is a headless browser that is driven by the DevTools protocol
// (https://chromedevtools.github.io/devtools-protocol/) over a pipe: it needs no port, and it ends with the pipe.
type chromium struct {
	t    *testing.T
	pipe *os.File // to the browser

	mu      sync.Mutex
	last    int
	answers map[int]chan answer
	pages   map[string]*page // by session
	ended   chan struct{}
}

// answer is a message of the browser: the answer to a call, or an event.
type answer struct {
	ID      int             `json:"id"`
	Result  json.RawMessage `json:"result"`
	Error   json.RawMessage `json:"error"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params"`
	Session string          `json:"sessionId"`
}

// startChromium starts a browser that ends with the test.
func startChromium(t *testing.T) *chromium {
	t.Helper()
	var path string
	for _, name := range chromiumNames {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Fatal("there is no Chromium: scripts/install-deps chromium installs it")
	}
	args := []string{"--headless", "--remote-debugging-pipe", "--user-data-dir=" + t.TempDir(), "--disable-gpu",
		"--disable-quic",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--no-sandbox", // it opens a page of ours only, and containers and root have no sandbox to offer
		"--disable-dev-shm-usage", "--log-level=3", "--hide-scrollbars", "--force-color-profile=srgb",
		"--no-proxy-server", "about:blank"}
	fromUs, toBrowser, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fromBrowser, toUs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Stderr = &log
	cmd.ExtraFiles = []*os.File{fromUs, toUs} // its descriptors 3 and 4
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fromUs.Close()
	toUs.Close()
	c := &chromium{t: t, pipe: toBrowser, answers: map[int]chan answer{}, pages: map[string]*page{},
		ended: make(chan struct{})}
	go c.read(fromBrowser)
	t.Cleanup(func() {
		toBrowser.Close()
		kill := time.AfterFunc(10*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		_ = cmd.Wait()
		kill.Stop()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what of its children is left, so that its files can go
		<-c.ended
		fromBrowser.Close()
		if t.Failed() {
			t.Logf("what Chromium said:\n%s", log.Bytes())
		}
	})
	return c
}

// read takes in messages until the browser ends. Each ends with a zero byte.
func (c *chromium) read(pipe *os.File) {
	defer close(c.ended)
	messages := bufio.NewReader(pipe)
	for {
		text, err := messages.ReadBytes(0)
		if err != nil {
			return
		}
		var a answer
		if err := json.Unmarshal(text[:len(text)-1], &a); err != nil {
			continue
		}
		c.mu.Lock()
		if waiting := c.answers[a.ID]; waiting != nil {
			delete(c.answers, a.ID)
			waiting <- a
		} else if p := c.pages[a.Session]; p != nil && a.Method != "" {
			p.hear(a)
		}
		c.mu.Unlock()
	}
}

// call calls a method and decodes its result, which may be nil.
func (c *chromium) call(session, method string, params map[string]any, result any) error {
	waiting := make(chan answer, 1)
	c.mu.Lock()
	c.last++
	id := c.last
	c.answers[id] = waiting
	message := map[string]any{"id": id, "method": method}
	if params != nil {
		message["params"] = params
	}
	if session != "" {
		message["sessionId"] = session
	}
	text, err := json.Marshal(message)
	if err == nil {
		_, err = c.pipe.Write(append(text, 0))
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case a := <-waiting:
		if a.Error != nil {
			return fmt.Errorf("%s: %s", method, a.Error)
		}
		if result == nil {
			return nil
		}
		return json.Unmarshal(a.Result, result)
	case <-c.ended:
		return fmt.Errorf("%s: the browser has ended", method)
	case <-time.After(30 * time.Second):
		return fmt.Errorf("%s: no answer", method)
	}
}

// page is a tab.
type page struct {
	*chromium
	session string

	faults   []string // errors on the console, exceptions and failed requests; guarded by mu
	requests []string // URLs; guarded by mu
}

// open opens a tab of a size in CSS pixels with a colour scheme, light or dark, and a page in it.
func (c *chromium) open(url string, width, height int, scale float64, scheme string) *page {
	c.t.Helper()
	var target struct{ TargetID string }
	var attached struct{ SessionID string }
	c.must("", "Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	c.must("", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	p := &page{chromium: c, session: attached.SessionID}
	c.mu.Lock()
	c.pages[p.session] = p
	c.mu.Unlock()
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		c.must(p.session, domain+".enable", nil, nil)
	}
	p.resize(width, height, scale)
	p.prefer(scheme)
	c.must(p.session, "Page.navigate", map[string]any{"url": url}, nil)
	return p
}

func (c *chromium) must(session, method string, params map[string]any, result any) {
	c.t.Helper()
	if err := c.call(session, method, params, result); err != nil {
		c.t.Fatal(err)
	}
}

// resize makes the tab one of a phone below 600 pixels.
func (p *page) resize(width, height int, scale float64) {
	p.t.Helper()
	p.must(p.session, "Emulation.setDeviceMetricsOverride", map[string]any{
		"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600,
	}, nil)
}

func (p *page) prefer(scheme string) {
	p.t.Helper()
	p.must(p.session, "Emulation.setEmulatedMedia", map[string]any{
		"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}},
	}, nil)
}

// hear takes in an event. It is called under mu.
func (p *page) hear(a answer) {
	var e struct {
		Type  string
		Args  []struct{ Value, Description any }
		Entry struct{ Level, Text, URL string }

		ExceptionDetails struct {
			Text      string
			Exception struct{ Description string }
		}
		Request struct{ URL string }
	}
	if err := json.Unmarshal(a.Params, &e); err != nil {
		return
	}
	switch a.Method {
	case "Runtime.consoleAPICalled":
		p.faults = append(p.faults, fmt.Sprint("console ", e.Type, ": ", e.Args))
	case "Runtime.exceptionThrown":
		p.faults = append(p.faults, "exception: "+e.ExceptionDetails.Text+" "+e.ExceptionDetails.Exception.Description)
	case "Log.entryAdded":
		if e.Entry.Level == "error" || e.Entry.Level == "warning" {
			p.faults = append(p.faults, e.Entry.Level+": "+e.Entry.Text+" "+e.Entry.URL)
		}
	case "Network.requestWillBeSent":
		p.requests = append(p.requests, e.Request.URL)
	}
}

// eval evaluates an expression of JavaScript, waits for it if it is a promise, and decodes its value as JSON.
func (p *page) eval(expression string, value any) error {
	var result struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails json.RawMessage
	}
	err := p.call(p.session, "Runtime.evaluate", map[string]any{
		"expression": expression, "returnByValue": true, "awaitPromise": true,
	}, &result)
	switch {
	case err != nil:
		return err
	case result.ExceptionDetails != nil:
		return fmt.Errorf("%s: %s", expression, result.ExceptionDetails)
	case result.Result.Value == nil:
		return fmt.Errorf("%s has no value", expression)
	}
	return json.Unmarshal(result.Result.Value, value)
}

// text is the text of the element with an id, empty while there is none.
func (p *page) text(id string) string {
	p.t.Helper()
	var text string
	if err := p.eval(fmt.Sprintf("document.getElementById(%q)?.textContent ?? ''", id), &text); err != nil {
		p.t.Fatal(err)
	}
	return text
}

// wait waits until elements have the texts that are given by id.
func (p *page) wait(timeout time.Duration, want map[string]string) {
	p.t.Helper()
	stacktest.Eventually(p.t, timeout, func() error {
		for id, text := range want {
			if got := p.text(id); got != text {
				return fmt.Errorf("%s is %q, want %q", id, got, text)
			}
		}
		return nil
	})
}

// screenshot is a picture of the tab as PNG.
func (p *page) screenshot() []byte {
	p.t.Helper()
	var shot struct{ Data string }
	p.must(p.session, "Page.captureScreenshot", map[string]any{"format": "png", "optimizeForSpeed": false}, &shot)
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil {
		p.t.Fatal(err)
	}
	return png
}
