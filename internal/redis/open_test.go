package redis

import (
	"slices"
	"strings"
	"testing"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		url, addrs, user, password string
		db                         int
		tls, cluster               bool
	}{
		{url: "redis://h:1", addrs: "h:1"},
		{url: "redis://h", addrs: "h:6379"},
		{url: "redis://h:1/3", addrs: "h:1", db: 3},
		{url: "redis://[::1]:1/0", addrs: "[::1]:1"},
		{url: "redis://h:1?protocol=2", addrs: "h:1"},
		{url: "rediss://u:p@h:1/2", addrs: "h:1", user: "u", password: "p", db: 2, tls: true},
		{url: "redis://:p%2F%40,@h:1", addrs: "h:1", password: "p/@,"},
		{url: "redis://u:a@b,c@h:1", addrs: "h:1", user: "u", password: "a@b,c"},
		{url: "redis://a:1,b:2,c:3", addrs: "a:1 b:2 c:3", cluster: true},
		{url: "rediss://u:p,q@a:1,b:2/0", addrs: "a:1 b:2", user: "u", password: "p,q", tls: true, cluster: true},
		{url: "redis://a:1,[::1]:2", addrs: "a:1 [::1]:2", cluster: true},
	} {
		o, err := parseURL(test.url)
		if err != nil {
			t.Errorf("%s: %v", test.url, err)
			continue
		}
		got := []any{strings.Join(o.Addrs, " "), o.Username, o.Password, o.DB, o.TLSConfig != nil, o.IsClusterMode}
		want := []any{test.addrs, test.user, test.password, test.db, test.tls, test.cluster}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", test.url, got, want)
		}
	}
}

func TestParseURLErrorsHideThePassword(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"", "h:1", "http://u:hunter2@h:1", "hunter2://h", "unix://u:hunter2@/tmp/socket",
		"redis://u:hunter2@h:1/x", "redis://u:hunter2@h:1/1/2", "redis://u:hunter2@h:port",
		"redis://u:hunter2@h:1/0?nonsense=1",
		"redis://u:hunter2/@h:1", "redis://u:/hunter2@h:1/0", "redis://u:hunter2?@h:1", "redis://u:#hunter2@h:1",
		"redis://u:hunter2#x@h:1",
		"redis://u:hunter2%zz@h:1", "redis://u:%hunter2@h:1", "redis://u: hunter2@h:1", "redis://u:hunter2\x7f@h:1",
		"redis://u:x[hunter2@h:1",
		"redis://u:hunter2@a:1,b", "redis://u:hunter2@a:1,b:2/1", "redis://u:a/hunter2@a:1,b:2",
		"redis://u:/hunter2,x@a:1,b:2",
		"redis://u:hunter2@a:1,", "redis://h:1/x", "redis://h:1,b",
	} {
		s, err := Open(url)
		if err == nil {
			_ = s.Close()
			t.Errorf("%q is accepted", url)
		} else if strings.Contains(err.Error(), "unter2") {
			t.Errorf("%q: the error tells the password: %v", url, err)
		}
	}
	if _, err := parseURL("redis://h:1/x"); err == nil || !strings.Contains(err.Error(), `"x"`) {
		t.Errorf("an error of a URL without a password does not say what is wrong: %v", err)
	}
}
