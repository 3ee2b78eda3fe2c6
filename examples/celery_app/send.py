"""
Leaves tasks for the worker.

    python examples/celery_app/send.py
"""

from tasks import bill

CUSTOMERS = ("李雷", "Jørgen", " ", "Ольга")

if __name__ == "__main__":
    for customer in CUSTOMERS:
        bill.delay(customer)
    print(f"{len(CUSTOMERS)} tasks wait for a worker")
