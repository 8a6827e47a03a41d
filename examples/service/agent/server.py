"""A long-running agent: each task is a POST, its answer the response."""
import json
import os
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

served = 0


def ask(text):
    request = urllib.request.Request(
        os.environ["OPENAI_BASE_URL"] + "/chat/completions",
        data=json.dumps({"model": "script/demo", "messages": [{"role": "user", "content": text}]}).encode(),
        headers={"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)["choices"][0]["message"]["content"]


class Agent(BaseHTTPRequestHandler):
    def do_POST(self):
        global served
        task = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        served += 1
        answer = f"{ask(task['input'])} (task {served} of this process)".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Agent).serve_forever()
