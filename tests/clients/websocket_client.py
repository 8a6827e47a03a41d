"""A client on the websockets package: one message, every frame until the task is done."""

import asyncio
import json
import os

from websockets.asyncio.client import connect


async def main():
    frames = []
    async with connect(os.environ["URL"]) as socket:
        await socket.send(json.dumps({"type": "message", "text": "websocket"}))
        while True:
            frame = json.loads(await asyncio.wait_for(socket.recv(), 30))
            frames.append(frame)
            if frame["type"] in ("done", "error"):
                break
    print(json.dumps(frames))


asyncio.run(main())
