package e2e

import (
	"context"
	"flag"
	"fmt"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"stampede/localstack/stacktest"
)

// screenshot is where TestBoardScreenshot puts its pictures.
var screenshot = flag.String("screenshot", "",
	"run a sale of two minutes and write pictures of its board to `path`-light.png and path-dark.png, from the root "+
		"of the repository")

// hostile is the name of a product that would do something on a page that takes it for HTML.
const hostile = `<img src=x onerror="document.title='hacked'"><script>document.title='hacked'</script>`

// TestBoard watches a sale on the board as an operator does, in Chromium: the numbers move, they end as those of the
// audit, and what fails is seen at once.
func TestBoard(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.mustCtl("product", "add", "--name", "Concert ticket", "--price", "4990", "--stock", "300", "--limit", "1")
	s.mustCtl("product", "add", "--name", hostile, "--price", "100", "--stock", "5")
	edge, first, second := s.startEdge(), s.startWorker(), s.startWorker()
	browser := startChromium(t)
	board := browser.open(edge.admin+"/board", 1180, 900, 1, "light")
	board.wait(20*time.Second, map[string]string{
		"connected": "Live", "words": "All is well.", "available": "305", "reserved": "0", "sold": "0", "accepted": "0",
		"queue": "0", "dead": "0", "drift": "0", "edges": "1", "workers": "2", "p99": "–",
	})

	// The numbers move while buyers come.
	c := newCrowd()
	var sale sync.WaitGroup
	sale.Go(func() { s.rush(t.Context(), c, 1, 400, 100) })
	stacktest.Eventually(t, 20*time.Second, func() error {
		sold, err := strconv.Atoi(board.text("sold"))
		accepted, decided, p99 := board.text("accepted"), board.text("decided-now"), board.text("p99")
		if err != nil || sold == 0 || sold == 300 || accepted == "0" || decided == "0" || p99 == "–" {
			return fmt.Errorf("%d sold, %s accepted and %s decided a second, answered in %s: %v", sold, accepted,
				decided, p99, err)
		}
		return nil
	})
	sale.Wait()
	s.mustBeClean(c, 30*time.Second, 300)
	a := s.audit(0) // nobody has asked for the second product, so Redis does not have it
	want := map[string]string{
		"sold": fmt.Sprint(a.Products[0].CompletedUnits + a.Products[1].CompletedUnits), "reserved": "0", "queue": "0",
		"dead":      "0",
		"available": fmt.Sprint(a.Products[0].Available + a.Products[1].Stock), "accepted": "0",
		"words": "All is well.",
	}
	board.wait(20*time.Second, want)
	var rows []string
	if err := board.eval("[...document.querySelectorAll('#list li')].map(li => li.innerText.replace(/\\s+/g, ' "+
		"').trim())", &rows); err != nil {
		t.Fatal(err)
	}
	wantRows := []string{"Concert ticket sold out 300 sold 0 reserved 0 in stock", hostile +
		" on sale 0 sold 0 reserved 5 in stock"}
	if fmt.Sprint(rows) != fmt.Sprint(wantRows) {
		t.Errorf("the products are %q, want %q", rows, wantRows)
	}
	board.check(s, edge.admin)

	// What is wrong is said in words.
	for change, want := range map[string]string{
		"":                                "✓ All is well.",
		"u.fleet.per_second.accepted = 1": "✓ All is well. A sale is running.",
		"u.fleet.per_second.errors = 0.5": "✕ Requests to order fail for a reason that is ours.",
		"u.fleet.edges = 0":               "✕ No edge is running: nobody can order.",
		"u.fleet.drift.found = 2":         "▲ Redis differs from MySQL: see ctl reconcile.",
		"u.queue.dead = 1; u.fleet.edges = 0": "✕ No edge is running: nobody can order. 1 dead letter waits for " +
			"you: see ctl dlq list.",
	} {
		var got string
		err := board.eval(`(() => {
			const u = {silent: [], queue: {dead: 0}, fleet: {edges: 1, workers: 1, paused: 0,
				drift: {found: 1, repaired: 1}, per_second: {accepted: 0, completed: 0, errors: 0}}};
			`+change+`;
			verdict(u);
			return document.getElementById('mark').textContent + ' ' + document.getElementById('words').textContent;
		})()`, &got)
		if err != nil || got != want {
			t.Errorf("%s: %q, %v", change, got, err)
		}
	}

	// The board of any process shows the same.
	other := browser.open(second.admin+"/board", 360, 740, 2, "dark")
	other.wait(20*time.Second, want)
	other.check(s, second.admin)

	// A worker that is killed is missed, one that ends by itself at once. Then orders wait.
	if err := first.Kill(); err != nil {
		t.Fatal(err)
	}
	board.wait(20*time.Second, map[string]string{"workers": "1"})
	second.Stop(30 * time.Second)
	board.wait(20*time.Second, map[string]string{"workers": "0",
		"words": "No worker is running: orders wait in the queue."})
	other.wait(20*time.Second, map[string]string{"connected": "Not connected, trying again. Numbers are of"})
	status, answer := request(t, "POST", s.url+"/api/orders", s.token(1), `{"product_id":2,"quantity":3}`)
	if status != http.StatusAccepted {
		t.Fatalf("%d %v", status, answer)
	}
	board.wait(20*time.Second, map[string]string{"reserved": "3", "reserved-note": "units, 1 order on the way",
		"queue": "1", "available": "2"})
	s.startWorker()
	board.wait(20*time.Second, map[string]string{"reserved": "0", "sold": "303", "queue": "0", "workers": "1",
		"words": "All is well."})
	board.check(s, edge.admin)

	// Of what does not answer the board shows no old numbers as if they were new.
	if err := s.stack.MariaDB.Kill(); err != nil {
		t.Fatal(err)
	}
	if status, answer := request(t, "POST", s.url+"/api/orders", s.token(2),
		`{"product_id":2,"quantity":1}`); status != http.StatusAccepted {
		t.Fatalf("%d %v", status, answer)
	}
	board.wait(20*time.Second, map[string]string{
		"words": "MySQL does not answer. 1 worker has paused, as a server does not answer.",
		"sold":  "–", "reserved": "–", "available": "1", "workers-note": "✕ 1 paused",
	})
	if err := s.stack.Redis.Kill(); err != nil {
		t.Fatal(err)
	}
	board.wait(20*time.Second, map[string]string{
		"words": "Redis does not answer. MySQL does not answer.", "available": "–", "edges": "–", "accepted": "–",
		"queue": "1", "connected": "Live",
	})
	if err := edge.Kill(); err != nil {
		t.Fatal(err)
	}
	board.wait(20*time.Second, map[string]string{"connected": "Not connected, trying again. Numbers are of"})
}

// check looks for what is wrong with the page as such: errors, requests to others, what does not fit into a phone or a
// desktop, and text that cannot be read, in both colour schemes.
func (p *page) check(s *system, admin string) {
	p.t.Helper()
	var title string
	if err := p.eval("document.title + document.images.length", &title); err != nil || title != "Stampede board0" {
		p.t.Errorf("the name of a product has done something: %q, %v", title, err)
	}
	if err := p.eval("document.querySelector('details').open = true", new(bool)); err != nil {
		p.t.Error(err)
	}
	for _, width := range []int{360, 768, 1180} {
		p.resize(width, 900, 1)
		var wide []string
		if err := p.eval(fmt.Sprintf(`[...document.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > %d.5
			|| e.matches('.number, .value, .tile, .counts, .bar') && e.scrollWidth > e.clientWidth + 1)
			.map(e => e.tagName + '.' + e.className + '#' + e.id)`, width), &wide); err != nil || len(wide) > 0 {
			p.t.Errorf("at a width of %d these do not fit: %q, %v", width, wide, err)
		}
	}
	for _, scheme := range []string{"light", "dark"} {
		p.prefer(scheme)
		var faint []string
		if err := p.eval(contrast, &faint); err != nil || len(faint) > 0 {
			p.t.Errorf("in the %s colours these cannot be read well: %q, %v", scheme, faint, err)
		}
		var ground string
		if err := p.eval("getComputedStyle(document.body).backgroundColor", &ground); err != nil {
			p.t.Fatal(err)
		}
		var bright int
		if _, err := fmt.Sscanf(ground, "rgb(%d,", &bright); err != nil || (bright > 128) != (scheme == "light") {
			p.t.Errorf("the %s ground is %s", scheme, ground)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.faults) > 0 {
		p.t.Errorf("the page has faults: %q", p.faults)
	}
	for _, url := range p.requests {
		if !strings.HasPrefix(url, admin+"/board") && !strings.HasPrefix(url, "data:") {
			p.t.Errorf("the page asks for %s", url)
		}
	}
	if len(p.requests) == 0 {
		p.t.Error("no request was seen")
	}
}

// contrast lists the elements with text of less than 4.5:1 against what is behind it (WCAG 2.2, section 1.4.3).
const contrast = `[...document.querySelectorAll('body *')].filter(e => {
	if (!e.checkVisibility() || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) return false;
	const parts = colour => colour.match(/[\d.]+/g).map(Number);
	const light = colour => {
		const [r, g, b] = parts(colour).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
		return .2126 * r + .7152 * g + .0722 * b;
	};
	let behind = e;
	while (parts(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
	const [a, b] = [light(getComputedStyle(e).color), light(getComputedStyle(behind).backgroundColor)];
	return (Math.max(a, b) + .05) / (Math.min(a, b) + .05) < 4.5;
}).map(e => e.tagName + '.' + e.className + '#' + e.id)`

// TestBoardScreenshot takes the pictures of the README, of a sale as they happen.
func TestBoardScreenshot(t *testing.T) {
	if *screenshot == "" {
		t.Skip("for the pictures of the README: go test ./e2e -run TestBoardScreenshot -screenshot docs/board")
	}
	s := newSystem(t)
	for _, p := range [][]string{
		{"Concert ticket, front row", "2500"}, {"Concert ticket, standing", "12000"},
		{"Sneaker, limited edition", "600"}, {"Console", "9000"},
	} {
		s.mustCtl("product", "add", "--name", p[0], "--price", "4990", "--stock", p[1])
	}
	edge := s.startEdge()
	s.startEdge()
	workers := []*program{s.startWorker(), s.startWorker(), s.startWorker()}
	board := startChromium(t).open(edge.admin+"/board", 1180, 700, 1.25, "light")
	ctx, stop := context.WithCancel(t.Context())
	var buyers sync.WaitGroup
	defer buyers.Wait()
	defer stop()
	start := time.Now()
	buyers.Go(func() {
		for i := 1; ctx.Err() == nil; i++ {
			product := []int{1, 2, 2, 2, 3, 4, 4}[i%7]
			buyers.Go(func() {
				_, _, _ = tryRequest(t, "POST", s.url+"/api/orders", s.token(i),
					fmt.Sprintf(`{"product_id":%d,"quantity":1}`, product))
			})
			wave := 1 + .6*math.Sin(time.Since(start).Seconds()/9) + .3*math.Sin(time.Since(start).Seconds()/2.3)
			time.Sleep(time.Duration(5 * float64(time.Millisecond) / wave))
		}
	})
	hold := func(s syscall.Signal) { // the workers, as a slow database does, so that there is something reserved
		for _, w := range workers {
			_ = w.Signal(s)
		}
	}
	defer hold(syscall.SIGCONT)
	time.Sleep(110 * time.Second)
	hold(syscall.SIGSTOP)
	time.Sleep(1500 * time.Millisecond)
	var height int
	if err := board.eval("document.documentElement.scrollHeight", &height); err != nil {
		t.Fatal(err)
	}
	board.resize(1180, height, 1.25)
	for _, scheme := range []string{"light", "dark"} {
		board.prefer(scheme)
		time.Sleep(100 * time.Millisecond)
		if err := os.WriteFile("../"+*screenshot+"-"+scheme+".png", board.screenshot(), 0o644); err != nil {
			t.Error(err)
		}
	}
}
