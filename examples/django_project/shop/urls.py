"""Which view of the shop answers which path."""

from django.urls import path

from . import views

urlpatterns = [
    path("orders/<int:number>/", views.order),
    path("broken/", views.broken),
]
