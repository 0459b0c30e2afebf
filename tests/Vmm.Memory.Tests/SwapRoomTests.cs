using Vmm.Memory.Paging;

namespace Vmm.Memory.Tests;

/// <summary>The map of free blocks against a plain array of them.</summary>
public sealed class SwapRoomTests
{
    [Theory]
    [InlineData(17)]
    [InlineData(64)]
    [InlineData(200)]
    public void Free_blocks_that_the_file_holds_are_given_back_from_the_end_as_in_a_plain_array(int blocks)
    {
        Random random = new(blocks);
        SwapRoom room = new(blocks);
        bool[] used = new bool[blocks], held = new bool[blocks];
        List<(int First, int Count)> taken = [];
        int given = 0;
        for (int step = 0; step < 20_000; step++)
        {
            int kind = random.Next(10);
            if (kind < 4)
            {
                int count = random.Next(1, SwapRoom.MostBlocks + 1), first = (int)room.Take(count);
                if (first >= 0)
                {
                    Array.Fill(used, true, first, count);
                    Array.Fill(held, true, first, count);
                    taken.Add((first, count));
                }
            }
            else if (kind < 8 && taken.Count > 0)
            {
                int which = random.Next(taken.Count);
                (int first, int count) = taken[which];
                taken.RemoveAt(which);
                room.Return(first, count);
                Array.Fill(used, false, first, count);
            }
            else
            {
                int last = Enumerable.Range(0, blocks).LastOrDefault(at => held[at] && !used[at], -1);
                Assert.Equal(last >= 0, room.TryTakeStale(out long first, out int count));
                if (last >= 0)
                {
                    Assert.Equal(last, first + count - 1);
                    Assert.All(Enumerable.Range((int)first, count), at => Assert.True(held[at] && !used[at]));
                    Assert.True(first % 64 == 0 || !held[first - 1] || used[first - 1]);
                    bool isGone = random.Next(4) > 0;
                    room.ReturnStale(first, count, isGone);
                    Array.Fill(held, !isGone, (int)first, count);
                    given += isGone ? count : 0;
                }
            }

            Assert.Equal(used.Count(each => !each), room.Free);
            Assert.Equal(Enumerable.Range(0, blocks).Count(at => held[at] && !used[at]), room.Stale);
        }

        Assert.True(given > blocks);
    }

    [Theory]
    [InlineData(17)]
    [InlineData(63)]
    [InlineData(64)]
    [InlineData(65)]
    [InlineData(129)]
    [InlineData(1000)]
    public void The_first_place_that_is_large_enough_is_taken_as_in_a_plain_array(int blocks)
    {
        Random random = new(blocks);
        SwapRoom room = new(blocks);
        bool[] used = new bool[blocks];
        List<(int First, int Count)> taken = [];
        int refused = 0;
        for (int step = 0; step < 20_000; step++)
        {
            // Fills up and empties by turns.
            if (random.Next(100) < (step / 500 % 2 == 0 ? 65 : 35))
            {
                int count = random.Next(1, SwapRoom.MostBlocks + 1), expected = FirstFree(used, count);
                Assert.Equal(expected, room.Take(count));
                if (expected < 0)
                {
                    refused++;
                    continue;
                }

                Array.Fill(used, true, expected, count);
                taken.Add((expected, count));
            }
            else if (taken.Count > 0)
            {
                int which = random.Next(taken.Count);
                (int first, int count) = taken[which];
                taken.RemoveAt(which);
                room.Return(first, count);
                Array.Fill(used, false, first, count);
            }

            Assert.Equal(used.Count(u => !u), room.Free);
        }

        Assert.True(refused > 0);
        foreach ((int first, int count) in taken)
        {
            room.Return(first, count);
        }

        Assert.Equal(blocks, room.Free);
        for (int i = 0; i < blocks / SwapRoom.MostBlocks; i++)
        {
            Assert.Equal(i * SwapRoom.MostBlocks, room.Take(SwapRoom.MostBlocks)); // nothing is left over in between
        }
    }

    [Fact]
    public void What_is_returned_twice_is_noticed()
    {
        SwapRoom room = new(100);
        long first = room.Take(3);
        room.Return(first, 3);
        Assert.Throws<InvalidOperationException>(() => room.Return(first, 3));
    }

    private static int FirstFree(bool[] used, int count)
    {
        int run = 0;
        for (int i = 0; i < used.Length; i++)
        {
            run = used[i] ? 0 : run + 1;
            if (run == count)
            {
                return i - count + 1;
            }
        }

        return -1;
    }
}
