"""One service that hears, answers and speaks over one WebSocket: OpenAI's Realtime interface and servers like it.

Place in the flow: sound of the person and the history -> RealtimeConversation -> words, sound of the answer -> Reply.
"""
