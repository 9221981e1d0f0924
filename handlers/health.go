package handlers

import (
	"net/http"

	"github.com/gin-gonic/gin"
)

type componentStatus struct {
	Status string `json:"status" enums:"ok,down,disabled,embedded"`
	Reason string `json:"reason,omitempty"` // why the status is not a plain ok
}

type readiness struct {
	Status     string `json:"status" enums:"ok,degraded,unavailable"`
	Components struct {
		Database componentStatus `json:"database"`
		Redis    componentStatus `json:"redis"`
	} `json:"components"`
}

// alive answers as long as the process serves.
func (h *Handlers) alive(c *gin.Context) error {
	return answerJSON(c, http.StatusOK, gin.H{"status": "ok"})
}

// ready answers 503 while the database is gone or takes no writes, and while the server shuts
// down. Without Redis it is degraded, with 200: everything still works.
func (h *Handlers) ready(c *gin.Context) error {
	answer := readiness{Status: "ok"}
	answer.Components.Database.Status = "ok"
	redis := &answer.Components.Redis
	redis.Status, redis.Reason = h.Redis.Status(), h.Redis.Reason()
	if h.Redis.Degraded() {
		answer.Status = "degraded"
	}
	if err := h.Database.Ping(c.Request.Context()); err != nil {
		answer.Status, answer.Components.Database.Status = "unavailable", "down"
		_ = c.Error(err) // for the access log
	}
	if h.draining.Load() {
		answer.Status = "unavailable"
	}
	c.Header("Cache-Control", "no-store")
	if answer.Status == "unavailable" {
		c.Header("Retry-After", "1")
		return answerJSON(c, http.StatusServiceUnavailable, answer)
	}
	return answerJSON(c, http.StatusOK, answer)
}
