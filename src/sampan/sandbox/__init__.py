"""What runs in forked children: zygote, keeper, launch plan, confined unpack.

No asyncio, threading, logging or sqlite3.
"""
