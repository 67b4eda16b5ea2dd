"""Common given names, for the invented people of lessons."""

from __future__ import annotations

GIVEN_TEXT = """
Aaron Abel Adam Adrian Agnes Al Alain Alan Albert Alberto Alec Alex Alexander Alfred Alice Allan Allen Amy
Andre Andrea Andrew Andy Angela Anna Anne Anthony Antonio Arnold Arthur Barbara Barry Ben Benjamin Bernard
Betty Bill Billy Blake Bob Brad Brett Brian Bruce Bruno Bryan Carl Carlos Carol Caroline Catherine Cecil
Charles Charlie Chris Christian Christine Christopher Claire Clara Claude Clint Colin Craig Curtis Cynthia
Dan Daniel Danny Darren Dave David Dean Deborah Dennis Derek Diana Diane Dick Diego Don Donald Dorothy Doug
Douglas Duncan Ed Eddie Edgar Edith Edmund Eduardo Edward Elaine Eleanor Eli Elizabeth Ella Ellen Emil Emily
Emma Eric Erik Ernest Ethan Eugene Eva Evelyn Felix Fernando Fiona Florence Frances Francesco Francis
Francois Frank Franz Fred Frederick Gabriel Gary Gene Geoffrey George Gerald Gerard Gilbert Giovanni Glenn
Gloria Gordon Grace Graham Greg Gregory Gus Guy Hal Hannah Hans Harold Harry Harvey Hector Helen Henri Henry
Herbert Herman Holly Howard Hugh Hugo Ian Ingrid Irene Irving Isaac Isabel Ivan Jack Jackie Jacob Jacques
Jake James Jan Jane Janet Jason Jay Jean Jeff Jeffrey Jennifer Jeremy Jerome Jerry Jesse Jessica Jim Jimmy
Joan Joanna Joe Joel Johann John Johnny Jon Jonathan Jorge Jose Joseph Joshua Juan Judith Julia Julian Julie
Karen Karl Kate Katherine Kathryn Keith Kelly Ken Kenneth Kevin Kim Kirk Kurt Lance Laura Laurence Lawrence
Lee Len Leo Leon Leonard Leslie Lewis Liam Lillian Linda Lisa Lloyd Louis Louise Lucas Lucy Luis Luke Lynn
Manuel Marc Marcel Marco Margaret Maria Marie Marina Mario Marion Mark Marshall Martha Martin Marvin Mary
Matt Matthew Maurice Max Megan Mel Melvin Michael Michel Miguel Mike Mitch Monica Morgan Nancy Naomi Natalie
Nathan Neil Nelson Nicholas Nick Nicolas Nigel Nina Nora Norman Oliver Olivia Oscar Pablo Pamela Patricia
Patrick Paul Paula Pedro Penny Pete Peter Phil Philip Phillip Pierre Rachel Ralph Randall Randy Ray Raymond
Rebecca Rex Ricardo Richard Rick Rob Robert Roberto Robin Rod Roger Roland Roman Ron Ronald Rosa Rose Ross
Roy Russell Ruth Ryan Sally Sam Samuel Sandra Sara Sarah Scott Sean Seth Sharon Sidney Simon Sofia Sonia
Stanley Stefan Stella Stephen Steve Steven Stewart Stuart Susan Sydney Sylvia Tamara Ted Teresa Terence
Terry Theodore Theresa Thomas Tim Timothy Todd Tom Tommy Tony Tracy Troy Ursula Valerie Vanessa Vera Vernon
Victor Victoria Vincent Virginia Vivian Vladimir Wallace Walter Warren Wayne Wendy Wilhelm Will William
Willy Yuri
"""
GIVEN_NAMES = tuple(GIVEN_TEXT.split())
