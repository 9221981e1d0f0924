package templates

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
)

// Asset is a file that pages load.
type Asset struct {
	Type string // its Content-Type
	Body []byte
	// Version is the start of the body's hash. Under a URL that carries it a file
	// never changes, so browsers may keep it for good.
	Version string
}

// Asset returns a static file by its name.
func (p *Pages) Asset(name string) (Asset, bool) {
	asset, ok := p.assets[name]
	return asset, ok
}

// assetURL is where a page finds a static file.
func (p *Pages) assetURL(name string) (string, error) {
	asset, ok := p.assets[name]
	if !ok {
		return "", fmt.Errorf("no static file %s", name)
	}
	return "/static/" + name + "?v=" + asset.Version, nil
}

func readAssets(files fs.FS) (map[string]Asset, error) {
	// Not package mime: what that answers depends on the machine.
	types := map[string]string{
		".css": "text/css; charset=utf-8",
		".js":  "text/javascript; charset=utf-8",
		".svg": "image/svg+xml",
		".txt": "text/plain; charset=utf-8",
	}
	assets := map[string]Asset{}
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		body, err := fs.ReadFile(files, entry.Name())
		if err != nil {
			return nil, err
		}
		kind, ok := types[path.Ext(entry.Name())]
		if !ok {
			return nil, fmt.Errorf("%s: no content type is known for it", entry.Name())
		}
		sum := sha256.Sum256(body)
		assets[entry.Name()] = Asset{Type: kind, Body: body, Version: hex.EncodeToString(sum[:6])}
	}
	return assets, nil
}
