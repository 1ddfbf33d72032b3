"""The Responses API: requests in the words of chats, answers as items. Nothing is stored between requests."""
