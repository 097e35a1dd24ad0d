package main

import (
	"net/http"
	"strings"
	"testing"
)

// Names have the letters of every script, and nothing that nobody sees; who sends such a thing is told which character.
func TestNamesShowWhatTheyAre(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	product := func(name, description string) string {
		return `{"name":"` + name + `","description":"` + description + `","price":4990,"currency":"EUR","stock":3}`
	}
	register := func(email, name string) string {
		return `{"email":"` + email + `","name":"` + name + `","password":"seven quiet otters knit"}`
	}
	for _, c := range []struct {
		path, body string
		status     int
		says       string
	}{
		{"/api/products", product("می\u200cخواهم 👩\u200d🚀", "two\\nlines"), http.StatusCreated, ""},
		{"/api/products", product("a\u202eb", "x"), http.StatusUnprocessableEntity, "U+202E"},
		{"/api/products", product("a\\u0009b", "x"), http.StatusUnprocessableEntity, "U+0009"},
		{"/api/products", product("ticket", "x\\u001b[2J"), http.StatusUnprocessableEntity, "U+001B"},
		{"/api/register", register("ada@example.org", "عبد الله"), http.StatusCreated, ""},
		{"/api/register", register("eve@example.org", "ad\u3164min"), http.StatusUnprocessableEntity, "U+3164"},
		{"/api/register", register("eve@example.org", "Ada\U000e0041"), http.StatusUnprocessableEntity, "U+E0041"},
	} {
		if r := w.Manage("POST", c.path, c.body); r.Status != c.status || !strings.Contains(r.Body, c.says) {
			t.Errorf("%s %s: %v, want %d %s", c.path, c.body, r, c.status, c.says)
		}
	}
}
