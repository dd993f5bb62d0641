"""Best of N, aimed at a level: an engine's candidates, judged, and the one nearest to the dials.

1. `reranker`   an engine's two calls, answered with one of N candidates: read it first
2. `breadth`    how many candidates the engine has room for
3. `race`       they run side by side; a check drops the worse ones, which frees them in the engine
4. `candidate`  one of them, as it grows
5. `selection`  the nearest to the dials, above the floor; pure
6. `answers`    the winner's events become a whole answer, or chunks
7. `facts`      what the receipt and the metrics tell of it

`track.py` is what all of a server's races share. What a request's race is run by is a plan: `modes/reranking.py`.
"""
