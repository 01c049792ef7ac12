package dav

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
)

// Tree is what a share holds: the sizes of its files, and its directories, by slash-separated path without the root.
type Tree struct {
	Files map[string]int64
	Dirs  map[string]bool
}

// wanted are the two properties that a Tree is made of.
const wanted = `<?xml version="1.0"?><propfind xmlns="DAV:"><prop><resourcetype/><getcontentlength/></prop></propfind>`

// response is one resource in a multistatus (RFC 4918, section 14.24).
type response struct {
	Href string `xml:"href"`
	Prop struct {
		Length     int64     `xml:"getcontentlength"`
		Collection *struct{} `xml:"resourcetype>collection"`
	} `xml:"propstat>prop"`
}

// List walks the whole share in one request.
func (c *Client) List(ctx context.Context) (Tree, error) {
	request, err := c.request(ctx, "PROPFIND", "/", strings.NewReader(wanted))
	if err != nil {
		return Tree{}, err
	}
	request.Header.Set("Depth", "infinity")
	request.Header.Set("Content-Type", "application/xml")
	answer, err := c.send(request)
	if err != nil {
		return Tree{}, err
	}
	defer answer.Body.Close()
	tree := Tree{Files: map[string]int64{}, Dirs: map[string]bool{}}
	if err := c.decode(answer.Body, tree); err != nil {
		return Tree{}, fmt.Errorf("list %s: %w", c.base, err)
	}
	return tree, nil
}

// decode reads the resources one by one. A list that does not end properly is an error: its rest is not known.
func (c *Client) decode(body io.Reader, tree Tree) error {
	decoder := xml.NewDecoder(body)
	complete := false
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) && complete {
			return nil
		} else if err != nil {
			return err
		}
		switch element := token.(type) {
		case xml.EndElement:
			complete = element.Name.Local == "multistatus"
		case xml.StartElement:
			if element.Name.Local != "response" {
				continue
			}
			var r response
			if err := decoder.DecodeElement(&r, &element); err != nil {
				return err
			}
			if err := c.enter(r, tree); err != nil {
				return err
			}
		}
	}
}

func (c *Client) enter(r response, tree Tree) error {
	href, err := url.Parse(r.Href)
	if err != nil {
		return err
	}
	name, ok := strings.CutPrefix(href.Path, c.base.Path)
	if !ok {
		return fmt.Errorf("%q is not in the share", href.Path)
	}
	switch name = strings.Trim(name, "/"); {
	case name == "":
	case r.Prop.Collection != nil:
		tree.Dirs[name] = true
	default:
		tree.Files[name] = r.Prop.Length
	}
	return nil
}
