package app

import (
	"context"
	"io/fs"
	"net/http"
	"os"
	"strings"

	"github.com/gin-gonic/gin"
	swaggerfiles "github.com/swaggo/files/v2"
	ginswagger "github.com/swaggo/gin-swagger"
	"golang.org/x/net/webdav"

	_ "gatehouse/docs" // the generated API description
)

// swagger serves Swagger UI with the API description.
func swagger() gin.HandlerFunc {
	ui := ginswagger.WrapHandler(&webdav.Handler{FileSystem: uiFiles{http.FS(swaggerfiles.FS)}, LockSystem: webdav.NewMemLS()},
		ginswagger.PersistAuthorization(true))
	return func(c *gin.Context) {
		name := strings.TrimPrefix(c.Param("any"), "/")
		switch name {
		case "":
			c.Redirect(http.StatusFound, "/swagger/index.html")
			return
		case "index.html", "index.css", "swagger-initializer.js", "doc.json": // which it makes itself
		default:
			if file, err := fs.Stat(swaggerfiles.FS, name); err != nil || file.IsDir() {
				c.String(http.StatusNotFound, "404 page not found")
				return
			}
		}
		// Swagger UI remembers the path of its first request as that of all its files.
		c.Request.RequestURI = "/swagger/" + name
		ui(c)
	}
}

// uiFiles are files in the program, as gin-swagger wants them. The first version of swaggo/files
// has that itself, but unpacks all files into memory at each start.
type uiFiles struct{ http.FileSystem }

func (u uiFiles) OpenFile(_ context.Context, name string, _ int, _ os.FileMode) (webdav.File, error) {
	file, err := u.Open(name)
	if err != nil {
		return nil, err
	}
	return readOnly{file}, nil
}

func (u uiFiles) Stat(_ context.Context, name string) (os.FileInfo, error) {
	file, err := u.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return file.Stat()
}

func (uiFiles) Mkdir(context.Context, string, os.FileMode) error { return fs.ErrPermission }
func (uiFiles) RemoveAll(context.Context, string) error          { return fs.ErrPermission }
func (uiFiles) Rename(context.Context, string, string) error     { return fs.ErrPermission }

type readOnly struct{ http.File }

func (readOnly) Write([]byte) (int, error) { return 0, fs.ErrPermission }
