package access

import "testing"

func TestParseOrigins(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"", "*", "null", "https://*.example.com", "https://shop.example.com:443", "http://shop.example.com:80",
		"https://a.example.com/", "a.example.com", "https://a,", "ftp://a", "https://A.example.com",
	} {
		if _, err := parseOrigins(bad); err == nil {
			t.Errorf("CORS_ORIGINS=%q is taken", bad)
		}
	}
	if origins, err := parseOrigins(noOrigins); len(origins) != 0 || err != nil {
		t.Error(origins, err)
	}
}
