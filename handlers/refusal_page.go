package handlers

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/templates"
)

const refusalsRoute = "/refusals"

// refusalPage tells a user why a save was refused.
func (h *Handlers) refusalPage(c *gin.Context) error {
	params, err := query(c, "request")
	if err != nil {
		return err
	}
	view := templates.Refusal{Frame: h.frame(c, "Why was my save refused?"), RequestID: strings.TrimSpace(params["request"])}
	status := http.StatusOK
	if view.RequestID != "" {
		if err := h.addRefusal(c, &view); err != nil {
			return err
		}
	}
	if view.Error != "" {
		status = http.StatusNotFound
		view.Title = "Error: " + view.Title
	}
	html, err := h.Pages.Refusal(view)
	return h.page(c, status, html, err)
}

func (h *Handlers) addRefusal(c *gin.Context, view *templates.Refusal) error {
	const unknown = "Nothing that was refused in the last 24 hours has this id."
	if !models.IsName(view.RequestID, "._-") {
		view.Error = unknown
		return nil
	}
	ctx, me := c.Request.Context(), signedIn(c).User
	refusal, current, err := h.Recorder.Refusal(ctx, me, isAdmin(c), view.RequestID)
	if errors.Is(err, models.ErrNotFound) {
		view.Error = unknown
		return nil
	}
	if err != nil {
		return err
	}
	found := &templates.Refused{Heading: models.ProblemKinds[refusal.Type].Title, At: refusal.At}
	own, end := refusal.User.ID == me.ID, endThen(refusal)
	found.Why = whyRefused(view.Now, refusal, end, current, own)
	if end != nil {
		found.EndedAt = end.At
	}
	if own {
		found.Next = nextAfter(refusal)
	} else {
		found.Who = "user " + refusal.User.ID
		if user, err := h.Accounts.User(ctx, refusal.User.ID); err == nil { // or the user was deleted
			found.Who = user.Email
		}
		if refusal.Type == "lock-not-held" {
			found.Heading = "They did not hold the lock"
		}
	}
	if id, ok := strings.CutPrefix(refusal.Resource, services.Resource("")); ok && isID(id) {
		found.Process, found.Title = id, h.titleOf(ctx, refusal.Resource)
	}
	view.Found = found
	return nil
}

// whyRefused says why a request was refused, to its own user or to an administrator who looks it up.
// current is the process as it was then, and end how the lock had ended; nil if that is not known.
func whyRefused(now time.Time, refusal models.Refusal, end *models.LockEnd, current *models.Process, own bool) string {
	user, holder := refusal.User, holderThen(refusal)
	switch refusal.Type {
	case "version-conflict", "precondition-failed":
		who := "Another user"
		switch {
		case current == nil:
		case own && current.UpdatedBy.ID == user.ID:
			who = "In another tab, or on another device, you"
		default:
			who = nameOf(current.UpdatedBy)
		}
		return who + " saved another version in between, so that this save would have overwritten it."
	case "locked":
		switch {
		case holder.ID == "":
			return "It was promised to another user, who was next."
		case own && holder.ID == user.ID:
			return "You were editing it in another tab, or on another device."
		}
		return nameOf(holder) + " was editing it."
	case "lock-not-held", "lock-token-required":
		why := "They did not have the lock any more."
		if own {
			why = "You did not have the lock any more."
		}
		if end != nil {
			why += " " + wayThen(now, *end, user, own)
		}
		if holder.ID != "" && holder.ID != user.ID && (end == nil || holder.ID != end.By.ID) {
			why += " " + nameOf(holder) + " was editing."
		}
		return why
	}
	return refusal.Detail
}

// nextAfter says to the user of a refused request what to do; "" if there is nothing.
func nextAfter(refusal models.Refusal) string {
	holder := holderThen(refusal).ID
	switch refusal.Type {
	case "version-conflict", "precondition-failed":
		return "Open the process and edit it: what you had typed is kept, and you decide about both texts."
	case "locked":
		switch holder {
		case "":
			return "Try again."
		case refusal.User.ID:
			return "Go on there, or open the process to go on here."
		}
		return "Ask for it on the page of the process, or wait until it is free."
	case "lock-not-held", "lock-token-required":
		if holder != "" {
			return "Open the process: what you had typed is kept."
		}
		return "Open the process and edit it: what you had typed is kept."
	}
	return ""
}

// wayThen says how, by whom, why and when a lock of the user had ended; own as in whyRefused.
func wayThen(now time.Time, end models.LockEnd, user models.UserRef, own bool) string {
	if own {
		text, _ := wayInWords(now, end, user)
		return text
	}
	text := lockEndInWords(end, user)
	switch {
	case end.How == models.LockReleased:
		text = "They had stopped editing."
	case end.How == models.LockTakenOver && end.By.ID == user.ID:
		text = "They went on in another tab, or on another device."
	case end.How == models.LockUserDisabled:
		text = "Their account was disabled."
	case end.How == models.LockProcessDeleted:
		text = "The process was deleted."
	}
	return text + " That was at " + templates.Clock(now, end.At) + "."
}

// holderThen is who had the lock when a request was refused; zero if no user had, or it is not known.
func holderThen(refusal models.Refusal) models.UserRef {
	var holder models.Holder
	_ = json.Unmarshal(refusal.Holder, &holder) // without a holder it is empty
	return models.UserRef{ID: holder.UserID, Email: holder.Email}
}

// endThen is how the lock had ended that a refused request needed; nil if that is not known.
func endThen(refusal models.Refusal) *models.LockEnd {
	var end struct {
		How    string
		By     models.Holder // as far as the answer named the user
		Reason string
		At     time.Time
	}
	if _ = json.Unmarshal(refusal.EndedBy, &end); end.How == "" {
		return nil
	}
	return &models.LockEnd{How: end.How, By: models.UserRef{ID: end.By.UserID, Email: end.By.Email}, Reason: end.Reason, At: end.At}
}
