"""A run's `session_state=` merged over what is stored, and in its place."""

from kern import Agent
from kern.db.sqlite import SqliteDb

db = SqliteDb("tmp/keeper.db")
merging = Agent(db=db, session_id="keeper")
overwriting = Agent(db=db, session_id="keeper", overwrite_db_session_state=True)

if __name__ == "__main__":
    merging.run("Remember this", session_state={"city": "Oslo", "trip": {"days": 3}})
    merging.run("And this", session_state={"trip": {"by": "train"}})
    print(f"Merged: {merging.get_session_state()}")
    overwriting.run("Only this counts", session_state={"city": "Bergen"})
    print(f"Overwritten: {overwriting.get_session_state()}")
